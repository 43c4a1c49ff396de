"""Export from a real trained model: whole folders, and the stage that fails."""

import json
import math
import sysconfig
from pathlib import Path

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
from datasets import load_from_disk

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.tasks.export import parity, variants
from headrace.tasks.export.encoder_harness import EncoderHarness as ExportHarness
from headrace.tasks.export.export import ExportRefused, export
from headrace.tasks.metrics import selective
from headrace.tasks.metrics.calibration import cross_entropy
from headrace.tasks.runtime import workspace
from headrace.tasks.runtime.artifacts import Artifact
from tests import ROOT, fabricated
from tests.helpers import changed
from tests.tasks.export.broken import broken, cut_mask

CLASSIFIER = "classifier.weight"


def session(file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(file, providers=["CPUExecutionProvider"])


# --- what is made ---------------------------------------------------------------------------------


def test_the_folder_opens_and_its_default_is_the_fastest(exported: Artifact, model: Path) -> None:
    whole = manifest.read(model)
    speeds = [variant.measured["tokens_per_second"] for variant in whole.variants]
    assert sorted(variant.name for variant in whole.variants) == ["fp32", "fused", "int8"]
    assert speeds == sorted(speeds, reverse=True)
    assert whole.default == whole.variants[0].name == exported.facts["default"]
    assert Scorer(model).variant.name == whole.default


def test_the_manifest_says_where_the_model_comes_from(
    recipe: Recipe, prepared: Artifact, trained: Artifact, model: Path
) -> None:
    whole = manifest.read(model)
    assert whole.training == {
        "recipe": "tiny",
        "prepared": prepared.digest,
        "trained": trained.digest,
        "salt": "",
        "test_share": 0.2,
    }
    assert (whole.objective, whole.max_length, whole.pad_id) == ("classification", 32, 0)
    assert whole.head["labels"] == ["food", "space", "sport"]
    assert whole.profile == json.loads((prepared.path / "profile.json").read_bytes())
    assert whole.score == {
        "chunk_rows": 10_000, "max_rejected": 0.1, "max_row_bytes": 2**26, "csv_safe": False,
        "text_column": "text", "abstain_below": None,
    }  # fmt: skip
    assert whole.dropped == {}


def test_probabilities_are_calibrated_on_the_validation_rows(
    prepared: Artifact, model: Path, exported: Artifact
) -> None:
    whole = manifest.read(model)
    temperature = whole.head["temperature"]
    texts = fabricated.texts_of(prepared, "validation")
    scorer = Scorer(model)
    logits = scorer.outputs(texts).astype(np.float64)
    targets = load_from_disk(str(prepared.path / "validation"))["labels"]

    def loss(t: float) -> float:
        prior = math.log(t) ** 2 / 2  # of `fit_temperature`
        return cross_entropy(logits / t, np.array(targets)) + prior

    assert loss(temperature) < min(loss(1.0), loss(temperature * 1.3), loss(temperature / 1.3))
    table = scorer.score(texts)
    assert table["label"].to_pylist() == [whole.head["labels"][i] for i in logits.argmax(axis=1)]
    stored = selective.read(model)
    assert stored is not None
    assert (stored["variant"], stored["rows"]) == (whole.default, len(texts))
    hits = logits.argmax(axis=1) == np.array(targets)
    probabilities = table["probability"].to_numpy()
    place = selective.THRESHOLDS.index(0.8)
    sure = probabilities >= 0.8
    assert stored["curves"][""]["decided"][place] == sure.sum()
    assert stored["curves"][""]["right"][place] == hits[sure].sum()


def test_the_table_holds_every_variant_and_pytorch_itself(exported: Artifact) -> None:
    table = json.loads((exported.path / "variants.json").read_bytes())
    assert table == exported.facts
    assert table["torch"]["metric"] > 0.8
    assert table["torch"]["tokens_per_second"] > 0
    for row in table["variants"]:
        assert row["status"] == "kept"
        assert row["agreement"] >= 0.98
        assert (
            row["size_bytes"]
            == (exported.path / "model" / row["name"] / "model.onnx").stat().st_size
        )
    assert [row["way"] for row in table["variants"]][:2] == ["plain", "fused"]


def test_golden_rows_cover_the_lengths_and_hold_for_every_variant(
    exported: Artifact, model: Path
) -> None:
    texts, outputs = golden.read(model)
    assert len(texts) == len(set(texts)) == 32
    assert sorted(outputs) == ["fp32", "fused", "int8"]
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 5
    assert max(lengths) >= 20
    for name in outputs:
        assert Scorer(model, variant=name).variant.name == name


def test_the_scorer_gives_what_pytorch_gives(harness: ExportHarness, model: Path) -> None:
    found = Scorer(model, variant="fp32").outputs(harness.validation.texts)
    assert np.abs(found - harness.torch["fp32"](harness.validation.ids)).max() < 1e-5


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 4), (1, 32), (7, 32), (64, 3)])
def test_shapes_beyond_the_sample_agree(
    harness: ExportHarness, model: Path, rows: int, length: int
) -> None:
    draw = np.random.default_rng(0)
    ids = list(draw.integers(5, 100, (rows, length)))
    feed = {"input_ids": np.stack(ids), "attention_mask": np.ones((rows, length), np.int64)}
    expected = harness.torch["fp32"](ids)
    for name in ("fp32", "fused"):
        opened = session(model / name / "model.onnx")
        given = {one.name: feed[one.name] for one in opened.get_inputs()}
        (found,) = opened.run(["logits"], given)
        assert np.abs(found - expected).max() < 1e-5


def test_of_an_int8_graph_only_what_products_take_is_rounded(model: Path) -> None:
    graph = onnx_ir.load(model / "int8" / "model.onnx").graph
    rounded = {
        user.op_type
        for node in graph
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for user, _ in node.outputs[0].uses()
    }
    assert rounded == {"MatMulIntegerToFloat", "DequantizeLinear", "Gemm"}
    assert {"FastGelu", "LayerNormalization"} < {node.op_type for node in graph}


def test_graphs_tell_nothing_of_the_machine_they_were_made_on(model: Path) -> None:
    root = ROOT
    for graph in model.glob("*/model.onnx"):
        content = graph.read_bytes()
        for place in (str(root), sysconfig.get_path("purelib"), "site-packages", ".py", "File "):
            assert place.encode() not in content, f"{place} in {graph}"


def test_a_second_export_is_found(
    recipe: Recipe, prepared: Artifact, trained: Artifact, exported: Artifact
) -> None:
    again = export(recipe, prepared, trained)
    assert (again.cached, again.path) == (True, exported.path)


# --- broken on purpose ----------------------------------------------------------------------------


def test_a_refused_fp32_graph_fails_the_stage_and_leaves_nothing(
    recipe: Recipe,
    prepared: Artifact,
    trained: Artifact,
    harness: ExportHarness,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    graph = broken(harness, cut_mask).source.graph
    monkeypatch.setattr(variants, "plain", lambda *_, **__: graph)
    with pytest.raises(ExportRefused, match="export failed: required variant fp32 did not pass"):
        export(recipe, prepared, trained)
    assert not [path for path in (workspace.home() / "artifacts").rglob("*") if path.is_file()]


# --- choices --------------------------------------------------------------------------------------


def test_refused_variants_are_dropped_with_their_reasons(
    recipe: Recipe,
    prepared: Artifact,
    trained: Artifact,
    harness: ExportHarness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variants, "plain", lambda *_, **__: harness.source.graph.clone())
    monkeypatch.setattr(parity, "INT8", parity.Tolerance(1e-9, 1e-9))
    monkeypatch.setattr(variants, "fused", lambda source: 1 / 0)
    asked = changed(recipe, export={"variants": ["fused", "int8", "fp16"], "default": "fp32"})
    made = export(asked, prepared, trained)
    whole = manifest.read(made.path / "model")
    assert [variant.name for variant in whole.variants] == ["fp32"]
    assert whole.default == "fp32"
    assert whole.dropped["fused"] == "build failed: ZeroDivisionError: division by zero"
    assert "static: outputs of" in whole.dropped["int8"]
    assert "dynamic: outputs of" in whole.dropped["int8"]
    assert whole.dropped["fp16"] == "requires a CUDA device"
    assert sorted(path.name for path in (made.path / "model").iterdir()) == [
        "calibration.json", "fp32", "golden.json", "manifest.json", "tokenizer.json",
        "training_texts.npy",
    ]  # fmt: skip
    refused = {row["name"]: row for row in made.facts["variants"] if row["status"] == "refused"}
    assert {name: row["reason"] for name, row in refused.items()} == whole.dropped
    assert refused["int8"]["tokens_per_second"] is None
    assert refused["int8"]["max_logit_difference"] > 0


def test_a_default_that_is_not_made_is_a_wrong_recipe(
    recipe: Recipe, prepared: Artifact, trained: Artifact
) -> None:
    asked = changed(recipe, export={"variants": ["fp32"], "default": "int8"})
    with pytest.raises(RecipeError, match=r"export\.default: int8 is not in export.variants"):
        export(asked, prepared, trained)


@pytest.mark.gpu
def test_on_a_gpu_half_precision_passes_the_gate(
    recipe: Recipe, prepared: Artifact, trained: Artifact
) -> None:
    undecided = {"min_agreement": 0.9, "max_metric_drop": 0.1}  # on texts without a telling word
    variants = {"variants": ["fp32", "fused", "fp16"], "default": "fp16", "gate": undecided}
    made = export(changed(recipe, export=variants), prepared, trained)
    assert made.facts["device"] == "cuda"
    scorer = Scorer(made.path / "model", device="cuda")
    assert (scorer.variant.name, scorer.runner.providers[0]) == ("fp16", "CUDAExecutionProvider")
