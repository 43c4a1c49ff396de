"""How the graph of each variant is made, and for which devices."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from headrace.configs.schema import Variant
from headrace.serving.engine import manifest
from headrace.serving.engine.scorer import HALF
from headrace.serving.runtime.session import PROVIDERS
from headrace.tasks.export import parity, try_variants, variants
from headrace.tasks.export.encoder_harness import EncoderHarness as ExportHarness
from headrace.tasks.export.graphs.graph import save


def tiny_classifier() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(vocab_size=20, intermediate_size=8, **shape)
    return BertForSequenceClassification(config).eval()


def test_only_graphs_of_onnxs_own_operators_are_for_tensorrt(
    harness: ExportHarness, model: Path
) -> None:
    cuda, tensorrt, cpu = (PROVIDERS[device] for device in ("cuda", "tensorrt", "cpu"))
    providers = {one.name: one.providers for one in manifest.read(model).variants}
    assert providers == {"fp32": (cuda, tensorrt, cpu), "fused": (cpu,), "int8": (cpu,)}
    on_gpu = {
        name: variants.build_methods(name, "cuda")[0] for name in ("fused", "fp16", "fp16_plain")
    }
    assert [method.providers for method in on_gpu.values()] == [(cuda,), (cuda,), (cuda, tensorrt)]
    for method in (variants.build_methods("fp32", "cuda")[0], on_gpu["fp16_plain"]):
        assert {node.domain for node in method.make(harness.source).graph} == {""}


def test_exporting_is_quiet_and_leaves_logging_as_it_was(
    harness: ExportHarness,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    before = logging.root.level, logging.getLogger("transformers").level, sys.stdout
    variants.plain(tiny_classifier(), max_length=8)
    try_variants.try_variant(harness, "int8", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
    assert (logging.root.level, logging.getLogger("transformers").level, sys.stdout) == before


def test_a_graph_with_other_outputs_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"outputs \['last_hidden_state'"):
        variants.plain(tiny_classifier().bert, max_length=8)


@pytest.mark.parametrize("make", [variants.fp16, variants.fp16_plain])
def test_half_precision_computes_the_same_where_a_cpu_can_tell(
    harness: ExportHarness, make: Callable[[variants.Source], Any], tmp_path: Path
) -> None:
    save(make(harness.source), tmp_path / "fp16")
    runner = try_variants.open_runner(harness, tmp_path / "fp16/model.onnx", "CPUExecutionProvider")
    method = variants.BuildMethod("fp16", make, ("cuda",), parity.FP16, golden=1.0)
    assert harness.check_parity(runner, method).reason is None


def test_serving_knows_which_variants_are_in_half_precision() -> None:
    assert tuple(name for name in get_args(Variant) if name.startswith("fp16")) == HALF
