"""int8 on CPUs that this machine does not have, emulated by qemu (apt-get install qemu-user).

Haswell has AVX2 and no VNNI: its products of uint8 and int8 saturate. Nehalem's, without AVX, do
not. An emulated process is some ten times slower, and those that it starts run natively.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from headrace.tasks.runtime.artifacts import Artifact
from tests import ROOT

QEMU = shutil.which("qemu-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed")
OPEN = """
import sys
from headrace.serving.runtime.saturation import saturates
from headrace.serving.engine.scorer import Scorer
for name in sys.argv[2:]:
    scorer = Scorer(sys.argv[1], variant=name)
    print(name, saturates(), scorer.variant.name, *scorer.score(["goal match team"])["label"])
"""


NOT_EMULATED = ("pcid", "x2apic", "tsc-deadline", "hle", "invpcid", "rtm")
"""What qemu warns of, once a thread, where a Haswell is asked for."""


def emulated(cpu: str, *call: str) -> subprocess.CompletedProcess[str]:
    assert QEMU is not None
    without = [f"-{one}" for one in NOT_EMULATED] if cpu == "Haswell" else []
    return subprocess.run(
        [QEMU, "-cpu", ",".join([cpu, *without]), sys.executable, *call],
        cwd=ROOT,
        # qemu 7.2 crashes in numpy's own AVX2 sort.
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": "X86_V3", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_there_is_an_emulator() -> None:
    assert QEMU, "int8 is not tested on CPUs without VNNI: apt-get install qemu-user"


@needs_qemu
def test_products_are_right_without_vnni() -> None:
    done = emulated(
        "Haswell",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "tests/serving/runtime/test_saturation.py",
    )
    assert done.returncode == 0, done.stdout


@needs_qemu
@pytest.mark.parametrize(("cpu", "saturates"), [("Haswell", True), ("Nehalem", False)])
def test_a_model_exported_here_runs_there_in_int8(
    cpu: str, saturates: bool, exported: Artifact
) -> None:
    """Its golden rows, computed by this machine's CPU, pass."""
    variants = ["int8", "fused", "fp32"]
    done = emulated(cpu, "-c", OPEN, str(exported.path / "model"), *variants)
    assert done.stdout.splitlines() == [f"{one} {saturates} {one} sport" for one in variants], (
        done.stderr
    )


@needs_qemu
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", ["graphs/test_quantization.py", "test_export.py"])
def test_int8_is_made_and_judged_there(file: str) -> None:
    done = emulated("Haswell", "-m", "pytest", "-q", "-p", "no:xdist", "-o", "timeout=3500",
                    f"tests/tasks/export/{file}")  # fmt: skip
    assert done.returncode == 0, done.stdout
