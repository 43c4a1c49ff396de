"""What every benchmark says of the machine it ran on, and where it writes its page."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HEADRACE_DATA", ROOT.parent / "shared" / "data"))
"""Labelled sets that are not part of the project; benchmarks that need one skip without it."""

LIBRARIES = ("torch", "transformers", "onnxruntime-gpu", "tokenizers")


def describe() -> str:
    """One line: processor, cores this process may use, versions."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"{processor()}, {cores} cores; Python {platform.python_version()}, {versions}"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_page(name: str, title: str, command: str, body: str) -> Path:
    """docs/benchmarks/NAME.md, written aside and renamed; also printed."""
    text = f"# {title}\n\nMachine: {describe()}.\n\nCommand: `{command}`\n\n{body}\n"
    folder = ROOT / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{name}.tmp"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / f"{name}.md")
    print(f"\n{text}")
    return folder / f"{name}.md"
