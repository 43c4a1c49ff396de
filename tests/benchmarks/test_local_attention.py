"""Sliding-window attention beside PyTorch's full one: time and memory by the length of a text.

Each length runs in a process of its own, whose highest memory (VmHWM) above that of the inputs is
what is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.benchmarks.machine import table, write_page

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

LENGTHS = (1024, 4096, 16_384, 65_536)
COMPARED = 4096
"""Up to this length the full attention under the window's mask is computed too."""
CLOSE = 1e-5
ONE = """
import json, re, sys, time
from pathlib import Path
import torch
from headrace.modeling.attention import attention, fused_attention
from headrace.modeling.sliding_window import LocalAttention, AttentionWindow
from headrace.modeling.positions import Positions

kind, length, compared = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
HEADS, WIDTH, WINDOW, N_GLOBAL = 4, 64, 128, 4

def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

torch.manual_seed(0)
at = torch.arange(length)[None]
reach = AttentionWindow(WINDOW, N_GLOBAL)
local = LocalAttention(reach, at, torch.ones_like(at), Positions(length, 1, 1))
q, k, v = (torch.randn(1, HEADS, length, WIDTH, requires_grad=True) for _ in range(3))
run = local if kind == "window" else fused_attention
small = [x[:, :, :1024].detach().requires_grad_() for x in (q, k, v)]
(fused_attention if kind == "full" else LocalAttention(
    reach, at[:, :1024], torch.ones_like(at[:, :1024]), Positions(length, 1, 1)
))(*small).sum().backward()  # what is set up once
before = peak_mb()
forward, backward = [], []
for _ in range(3 if kind == "window" or length <= 16384 else 1):
    started = time.perf_counter()
    y = run(q, k, v)
    done = time.perf_counter()
    y.sum().backward()
    forward.append(done - started)
    backward.append(time.perf_counter() - done)
found = {"forward_s": min(forward), "backward_s": min(backward), "peak_mb": peak_mb() - before}
if kind == "window" and length <= compared:
    gradients = [x.grad / len(forward) for x in (q, k, v)]
    mask = reach.allows(at[:, None, :, None], at[:, None, None, :])
    expected, _ = attention(q, k, v, mask)
    theirs = torch.autograd.grad(expected.sum(), (q, k, v))
    found["difference"] = max(
        float((a - b).abs().max()) for a, b in zip([y, *gradients], [expected, *theirs])
    )
print(json.dumps(found))
"""


def measured(kind: str, length: int) -> dict[str, Any]:
    command = [sys.executable, "-c", ONE, kind, str(length), str(COMPARED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_a_window_costs_by_the_length_not_by_its_square() -> None:
    found = {(kind, n): measured(kind, n) for kind in ("window", "full") for n in LENGTHS}
    rows = []
    for n in LENGTHS:
        window, full = found["window", n], found["full", n]
        rows.append(
            [
                f"{n:,}",
                *(
                    f"{one['forward_s']:.3f} / {one['backward_s']:.3f} / {one['peak_mb']:,.0f}"
                    for one in (window, full)
                ),
                f"{window['difference']:.1g}" if "difference" in window else "",
            ]
        )
    body = (
        "One layer's attention, 4 heads of 64, fp32; a window of 128 tokens to either side and 4 "
        "global tokens. Seconds forward / seconds backward / MB above the inputs.\n\n"
        + table(["tokens", "window", "full (PyTorch's fused)", "window against full, masked"], rows)
    )
    write_page("local-attention", "Sliding-window attention by length", "make bench", body)
    for n in LENGTHS:
        assert found["window", n].get("difference", 0) < CLOSE
    total = {n: found["window", n]["forward_s"] + found["window", n]["backward_s"] for n in LENGTHS}
    # 16 times from 4,096 to 65,536, and what the caches no longer hold; the square would be 256.
    assert total[65_536] < 32 * total[4096]
    assert found["window", 65_536]["peak_mb"] < 24 * max(found["window", 4096]["peak_mb"], 1)
