"""Other ways to run the same classifier, each as a good engineer would set it up.

A peer is a function from texts to anything, made once from the fine-tuned model's folder. Where a
tool has a setting that decides its speed (batch size, how requests are handed in), several are
measured and the page shows them.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.machine import ROOT
from tests.benchmarks.scoring_model import MAX_LENGTH

Score = Callable[[Sequence[str]], object]
Rows = list[list[int]]

SLICE = 256
"""Texts a peer is given at a time: as many as it can sort by length."""
OPTIMUM = Path(os.environ.get("HEADRACE_OPTIMUM", ROOT / ".venv-optimum" / "bin" / "python"))
"""A Python with optimum-onnx, which needs an older transformers; `make bench` makes one."""


def timed(
    score: Score,
    texts: Sequence[str],
    lengths: Sequence[int],
    seconds: float,
    size: int = SLICE,
) -> float:
    """Real tokens a second: slices of `size` texts until the time is up."""
    score(texts[-16:])
    tokens, started = 0, time.perf_counter()
    for start in range(0, len(texts), size):
        score(texts[start : start + size])
        tokens += sum(lengths[start : start + size])
        if time.perf_counter() - started > seconds:
            break
    return tokens / (time.perf_counter() - started)


# --- transformers and PyTorch ---------------------------------------------------------------------


PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def pipeline(model: Path, precision: str, batch: int, device: str = "cpu") -> Score:
    from transformers import pipeline as make

    one = make(
        "text-classification",
        model=str(model),
        tokenizer=str(model),
        dtype=PRECISIONS[precision],
        device=device,
    )
    return lambda some: one(list(some), batch_size=batch, truncation=True, max_length=MAX_LENGTH)


def mlflow_flavour(model: Path, folder: Path) -> Score:
    """MLflow's own transformers flavour: what `log_model` of a pipeline gives."""
    import mlflow
    from transformers import pipeline as make

    one = make("text-classification", model=str(model), tokenizer=str(model))
    how = {"truncation": True, "max_length": MAX_LENGTH}
    signature = mlflow.models.infer_signature(["a text"], params=how)
    mlflow.transformers.save_model(
        one, folder / "flavour", signature=signature, pip_requirements=["transformers", "torch"]
    )
    loaded = mlflow.pyfunc.load_model(str(folder / "flavour"))
    return lambda some: loaded.predict(list(some), params=how)


def sorted_torch(model: Path, precision: str, batch: int, device: str = "cpu") -> Score:
    """A loop of one's own: sorted by length, padded in small batches."""
    import torch
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=PRECISIONS[precision]
    ).eval()
    classifier.to(device)
    encode = encoder(model)

    def score(some: Sequence[str]) -> list[Any]:
        with torch.inference_mode():
            logits = [
                classifier(
                    **{name: torch.from_numpy(x).to(device) for name, x in feeds.items()}
                ).logits
                for feeds in batches(encode(some), batch)
            ]
        return [each.float().cpu().numpy() for each in logits]

    return score


# --- OpenVINO -------------------------------------------------------------------------------------


class OpenVino:
    """The same fp32 graph as Headrace's, in bf16 and in the int8 of its own compressor."""

    def __init__(self, model: Path, graph: Path, calibration: Sequence[str]) -> None:
        import openvino

        self._core = openvino.Core()
        self._encode = encoder(model)
        self._graph = graph
        self._calibration = calibration
        self._int8: Any = None

    def score(self, precision: str, hint: str, batch: int) -> Score:
        """`hint`: LATENCY hands in one batch after the other, THROUGHPUT several at a time."""
        import openvino

        graph = self._quantized() if precision == "int8" else self._core.read_model(self._graph)
        # What is not int8 runs in bf16 there too: it has the faster kernels for that.
        config = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": hint}
        compiled = self._core.compile_model(graph, "CPU", config)

        def score(some: Sequence[str]) -> None:
            queue = openvino.AsyncInferQueue(compiled)
            for feeds in batches(self._encode(some), batch):
                queue.start_async(feeds)
            queue.wait_all()

        def one_by_one(some: Sequence[str]) -> None:
            for feeds in batches(self._encode(some), batch):
                compiled(feeds)

        return score if hint == "THROUGHPUT" else one_by_one

    def _quantized(self) -> Any:
        if self._int8 is None:
            import nncf

            feeds = list(batches(self._encode(self._calibration), 1))
            self._int8 = nncf.quantize(
                self._core.read_model(self._graph),
                nncf.Dataset(feeds),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(feeds),
            )
        return self._int8


# --- CTranslate2 ----------------------------------------------------------------------------------


def ctranslate2_int8(model: Path, folder: Path) -> Score:
    """Its encoder alone: the head would be one more product, done elsewhere."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoModelForSequenceClassification

    bert = AutoModelForSequenceClassification.from_pretrained(model).bert
    bert.save_pretrained(folder / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "bert" / name).write_bytes((model / name).read_bytes())
    TransformersConverter(str(folder / "bert")).convert(str(folder / "ct2"), quantization="int8")
    cores = len(os.sched_getaffinity(0))
    one = ctranslate2.Encoder(str(folder / "ct2"), inter_threads=cores, intra_threads=1)
    encode = encoder(model)

    def score(some: Sequence[str]) -> None:
        rows = sorted(encode(some), key=len)
        for start in range(0, len(rows), 32):
            one.forward_batch(rows[start : start + 32])

    return score


# --- optimum, in an environment of its own --------------------------------------------------------


def optimum(model: Path, texts: Sequence[str], lengths: Sequence[int], seconds: float) -> Any:
    """Tokens a second of its pipeline by precision and batch; None where it is not installed."""
    if not OPTIMUM.exists():
        return None
    given = {"model": str(model), "texts": list(texts), "lengths": list(lengths)}
    done = subprocess.run(
        [str(OPTIMUM), str(Path(__file__).with_name("optimum_peer.py"))],
        input=json.dumps({**given, "seconds": seconds, "slice": SLICE, "max_length": MAX_LENGTH}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


# --- what several have in common ------------------------------------------------------------------


def encoder(model: Path) -> Callable[[Sequence[str]], Rows]:
    """The fast tokenizer, without transformers around it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.no_padding()
    return lambda some: [one.ids for one in tokenizer.encode_batch(list(some))]


def batches(rows: Rows, size: int) -> Iterator[dict[str, Any]]:
    """Sorted by length, each batch padded to its longest row."""
    rows = sorted(rows, key=len)
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        ids = np.zeros((len(some), max(map(len, some))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(some):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        yield {"input_ids": ids, "attention_mask": mask}
