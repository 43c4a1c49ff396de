"""Docstrings of installed Python packages: real text on every machine, without a download.

The files are parsed, never imported. Each package provides a bounded sample, taken from its files
in the order of a hash of their names, so it is spread over the package and the same every time.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from headrace.configs.errors import DataError
from headrace.configs.schema import DocstringsSource
from headrace.tasks.data.sources import Block, Rows, Source
from headrace.tasks.data.splits import normalise

COLUMNS = ["text", "label", "kind"]
MIN_CHARS = 40
"""Minimum characters of a text; a shorter one says too little about its package."""
MASK = "package"
TESTS = {"test", "tests"}
PER_FILE = 4
"""Texts taken from a file before all other files have had a turn: neighbors are very similar."""
SMALL_BYTES = 40_000
"""Size above which files are parsed last, because they take more time per text."""
PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r".+?[.!?](?=\s|$)")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    """A docstring, the package it comes from and the kind of object that it documents."""

    text: str
    label: str
    """Name of the package."""
    kind: str
    """Kind of the documented object: module, class or function."""


def open_source(
    source: DocstringsSource, columns: Sequence[str] = (), folder: object = None
) -> Source:
    """Open a source with columns `text`, `label` and `kind`, all in the training split.

    Raises DataError for a package that is not installed and, when read, for one without usable
    docstrings.
    """
    places = {name: _place_of(name) for name in source.packages}
    digest = {
        "kind": source.kind,
        "packages": [[name, _version(name)] for name in places],
        "per_package": source.per_package,
        "form": source.form,
    }

    def read() -> Iterator[Block]:
        keys: set[str] = set()
        longest_first = sorted(source.packages, key=len, reverse=True)
        names = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
        samples = [
            list(islice(_texts(name, _files(root), source.form, names, keys), source.per_package))
            for name, root in places.items()
        ]
        for package, sample in zip(places, samples, strict=True):
            if not sample:
                raise DataError(f"data.source.packages: {package!r} has no usable docstrings")
        # One row of each package in turn, so that the first rows are a balanced table too.
        rows = [row for turn in zip_longest(*samples) for row in turn if row is not None]
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        yield Block(0, columns, [None] * len(rows))

    return Source(digest, {"train": Rows(COLUMNS, read)})


def _texts(
    package: str, files: list[Path], form: str, names: re.Pattern[str], keys: set[str]
) -> Iterator[Row]:
    """Yield texts that are not in `keys` yet; files are parsed only as they are needed."""
    later_rows = []
    for file in files:
        n_taken = 0
        for kind, docstring in _docstrings(file):
            text = first_sentence(docstring) if form == "sentence" else inspect.cleandoc(docstring)
            text = names.sub(MASK, text)
            key = normalise(text)
            if len(text) < MIN_CHARS or key in keys:
                continue
            keys.add(key)
            if n_taken < PER_FILE:
                n_taken += 1
                yield Row(text, package, kind)
            else:
                later_rows.append(Row(text, package, kind))
    yield from later_rows


def first_sentence(docstring: str) -> str:
    """Return the first sentence of the first paragraph, on one line."""
    paragraph = " ".join(PARAGRAPH_END.split(docstring.strip(), maxsplit=1)[0].split())
    match = SENTENCE.match(paragraph)
    return match[0] if match else paragraph


def _docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (kind, docstring) of a file, outermost first; nothing if it is not Python 3."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escapes in others' code
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in _documented(tree):
        if text := ast.get_docstring(node, clean=False):
            kind = type(node).__name__.removesuffix("Def").removeprefix("Async").lower()
            yield kind, text


def _documented(node: Documented) -> Iterator[Documented]:
    """Yield the node and, recursively, the classes and functions directly in its body."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child)


def _place_of(package: str) -> Path:
    """Return the package's folder, or its file if it is a single module."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None or not Path(spec.origin).exists():
        raise DataError(
            f"data.source.packages: package {package!r} is not installed; pip install it or "
            "remove it from the list (use import names: sklearn, not scikit-learn)"
        )
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _files(root: Path) -> list[Path]:
    """Return the package's Python files without tests: small ones first, by a hash of the name."""
    if root.is_file():
        return [root]

    n_above = len(root.parts)
    files = [file for file in root.rglob("*.py") if TESTS.isdisjoint(file.parts[n_above:])]

    def place(file: Path) -> tuple[bool, bytes]:
        name = "/".join(file.parts[n_above:])
        return file.stat().st_size > SMALL_BYTES, blake2b(name.encode()).digest()

    return sorted(files, key=place)


def _version(package: str) -> str:
    """Return the distribution's version; Python's own for the standard library."""
    if package in sys.stdlib_module_names:
        return f"python {platform.python_version()}"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # The distribution has another name; looking it up takes a second.
        names = importlib.metadata.packages_distributions().get(package, [])
        return ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names))
        )
