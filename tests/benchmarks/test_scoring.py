"""Batch scoring, file to file, beside the other ways to run the same classifier on this machine.

One run, one fine-tuned MiniLM, real docstrings at their natural lengths (cut at 256 tokens). Real
tokens are counted, never padding. Headrace scores all of them, from a Parquet file to a folder of
parts; a peer (peers.py) scores as many of them, in random order, as it can in a fixed time, and is
judged by its best setting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.tasks.runtime.artifacts import Artifact
from tests.benchmarks import peers
from tests.benchmarks.machine import gop_per_second, table, write_page
from tests.benchmarks.scoring_model import MAX_LENGTH, docstrings, fine_tuned, operations

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore"),  # what the peers' libraries warn of is their business
]

N_TEXTS = 20_000
PEER_S = 20.0
"""How long each setting of a peer runs."""
SPELLS = 4
"""How often the machine's ceiling is measured again while the sessions run."""


@dataclass(frozen=True)
class Texts:
    """The texts in random order, with what they come to."""

    texts: list[str]
    lengths: list[int]
    """Tokens of each, cut at MAX_LENGTH."""


@pytest.fixture(scope="module")
def exported() -> tuple[Artifact, Artifact]:
    return fine_tuned()


@pytest.fixture(scope="module")
def texts(exported: tuple[Artifact, Artifact]) -> Texts:
    from headrace.serving.text.tokenizer import TextTokenizer

    tokenizer = TextTokenizer(exported[1].path / "model" / "tokenizer.json", MAX_LENGTH)
    kept = docstrings(N_TEXTS)
    return Texts(kept, [len(ids) for ids in tokenizer.encode(kept)])


def test_headrace_beside_its_peers(
    exported: tuple[Artifact, Artifact], texts: Texts, tmp_path: Path
) -> None:
    trained, made = exported
    mine = headrace(trained, made, texts, tmp_path)
    others = measured_peers(trained.path / "model", made.path / "model", texts, tmp_path)
    chosen = mine[made.facts["default"]]
    rivals = {who: max(speeds.values()) for who, speeds in others.items()}
    body = "\n\n".join(
        [
            f"{len(texts.texts):,} docstrings, {sum(texts.lengths):,} tokens.",
            "## Headrace",
            "A table in one Parquet file into a folder of Parquet parts, with everything a job "
            "does: reading, tokenising, committing, loading the model. The ceiling is this "
            "machine's own product of two 2048 x 2048 matrices in onnxruntime, measured in turn, "
            f"at {operations(trained, texts.lengths) / sum(texts.lengths) / 1e6:.1f} million "
            "operations a token, as the architecture has them (the share can pass 1, since of the "
            "last layer only one token is computed).",
            table(
                ["variant", "file to file, tokens/s", "sessions alone", "share of that",
                 "ceiling, GOP/s", "sessions' share of it", "padding"],
                [
                    [name, f"{one.job:,.0f}", f"{one.alone:,.0f}", f"{one.job / one.alone:.1%}",
                     f"{one.ceiling:,.0f}", f"{one.share_of_ceiling:.1%}", f"{one.padding:.1%}"]
                    for name, one in mine.items()
                ],
            ),
            f"By default the model runs as **{made.facts['default']}**: int8 agreed with PyTorch "
            f"on {agreement(made):.1%} of the gate's rows.",
            "## Beside the others",
            "Times faster is Headrace's default, file to file, over the best setting of the other.",
            table(
                ["", "best, tokens/s", "Headrace is faster", "settings"],
                [
                    [who, f"{rivals[who]:,.0f}", f"{chosen.job / rivals[who]:.2f} times",
                     ", ".join(f"{how}: {speed:,.0f}" for how, speed in speeds.items())]
                    for who, speeds in others.items()
                ],
            ),
        ]
    )  # fmt: skip
    write_page("scoring", "Batch scoring, MiniLM-L6", "make bench", body)


# --- Headrace -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Tokens a second, the machine's ceiling in GOP/s, and the share of padding."""

    alone: float
    job: float
    ceiling: float
    share_of_ceiling: float
    padding: float


def headrace(trained: Artifact, made: Artifact, texts: Texts, folder: Path) -> dict[str, Measured]:
    """Every variant: its sessions by themselves, and the job from file to file."""
    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.jobs import job

    pq.write_table(pa.table({"text": texts.texts}), folder / "texts.parquet")
    model, tokens = made.path / "model", sum(texts.lengths)
    found = {}
    for name in [one["name"] for one in made.facts["variants"] if one["status"] == "kept"]:
        kind = "int8" if name == "int8" else "fp32"
        scorer = Scorer(model, variant=name)
        ids = [one.windows[0] for one in scorer.read(texts.texts)]
        scorer.runner.run(ids[:256])
        seconds, ceilings, each = 0.0, [gop_per_second(kind)], len(ids) // SPELLS
        for start in range(0, len(ids), each):
            started = time.perf_counter()
            scorer.runner.run(ids[start : start + each])
            seconds += time.perf_counter() - started
            ceilings.append(gop_per_second(kind))
        report = job.score_table(model, folder / "texts.parquet", folder / name, variant=name)
        found[name] = Measured(
            alone=tokens / seconds,
            job=tokens / report.seconds,
            ceiling=mean(ceilings),
            share_of_ceiling=operations(trained, texts.lengths) / seconds / mean(ceilings) / 1e9,
            padding=report.padding_share,
        )
        print(name, found[name])
    return found


def agreement(made: Artifact) -> float:
    (int8,) = [one for one in made.facts["variants"] if one["name"] == "int8"]
    return float(int8["agreement"])


# --- peers ----------------------------------------------------------------------------------------


def measured_peers(
    model: Path, exported: Path, texts: Texts, folder: Path
) -> dict[str, dict[str, float]]:
    """Tokens a second of each peer, by its setting."""

    def speed(score: peers.Score) -> float:
        found = peers.timed(score, texts.texts, texts.lengths, PEER_S)
        print(f"{found:,.0f} tokens/s", flush=True)
        return found

    found: dict[str, dict[str, float]] = {}
    for precision in ("fp32", "bf16"):
        found[f"transformers pipeline(), {precision}"] = {
            f"batch {n}": speed(peers.pipeline(model, precision, n)) for n in (1, 8, 32)
        }
        found[f"PyTorch {precision}, sorted by length"] = {
            f"batch {n}": speed(peers.sorted_torch(model, precision, n)) for n in (8, 16, 32)
        }
    found["MLflow's transformers flavour"] = {"": speed(peers.mlflow_flavour(model, folder))}
    openvino = peers.OpenVino(model, exported / "fp32" / "model.onnx", texts.texts[-128:])
    for precision in ("bf16", "int8"):
        found[f"OpenVINO {precision}, sorted by length"] = {
            f"{hint.lower()}, batch {n}": speed(openvino.score(precision, hint, n))
            for hint in ("LATENCY", "THROUGHPUT")
            for n in (8, 16, 32)
        }
    found["CTranslate2 int8, sorted by length"] = {
        "batch 32": speed(peers.ctranslate2_int8(model, folder))
    }
    for setting, one in (peers.optimum(model, texts.texts, texts.lengths, PEER_S) or {}).items():
        precision, _, batch = setting.partition(", ")
        found.setdefault(f"optimum-onnx pipeline(), {precision}", {})[batch] = one
    return found
