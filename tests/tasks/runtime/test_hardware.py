"""What this machine has: kills for memory, and precision."""

from pathlib import Path

import pytest
import torch

from headrace.configs.errors import RecipeError
from headrace.tasks.runtime import hardware


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_oom_kills_are_read_from_either_version_of_control_groups(tmp_path: Path) -> None:
    assert hardware.oom_kills(tmp_path) == 0
    write(tmp_path / "v1" / "memory" / "memory.oom_control", "under_oom 0\noom_kill 2\n")
    assert hardware.oom_kills(tmp_path / "v1") == 2
    write(tmp_path / "v2" / "memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 3\n")
    assert hardware.oom_kills(tmp_path / "v2") == 3


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "auto"),
    [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")],
)
def test_auto_precision_on_cpu_follows_the_instruction_set(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, auto: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert hardware.precision("auto", "cpu") == auto
    assert hardware.precision("fp32", "cpu") == "fp32"
    assert hardware.precision("bf16", "cpu") == "bf16"


def test_bf16_on_a_gpu_without_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert hardware.precision("auto", "cuda") == "fp32"
    with pytest.raises(
        RecipeError, match="bf16 is not supported natively on Tesla T4; use auto or fp32"
    ):
        hardware.precision("bf16", "cuda")
