"""Export a trained PyTorch model to a model folder that serving can open.

Every ONNX variant must pass the parity check (parity.py) on validation rows; test rows are reserved
for the promotion decision. Variants that pass are timed on this device, and the fastest becomes the
default. The export fails closed: without a plain fp32 graph that agrees with PyTorch, it makes no
model folder. Read in this order: variants.py, parity.py, try_variants.py. Imports torch only
inside functions.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.errors import RecipeError
from headrace.configs.schema import FilesSource, Recipe
from headrace.serving import heads
from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.heads import MIN_PROBABILITY
from headrace.serving.jobs.start import CHUNK_ROWS
from headrace.serving.text.inputs import TEXT, stored
from headrace.tasks import objectives
from headrace.tasks.data import inputs, training_texts, windowing
from headrace.tasks.export import attention_maps, held_out, try_variants, variants
from headrace.tasks.export.attention_maps import AttentionMaps
from headrace.tasks.export.try_variants import ExportHarness, ExportRefused, VariantResult
from headrace.tasks.objectives import selection
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.json_files import write_json

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import (
        Exported,
        ExportedFacts,
        Prepared,
        TorchFacts,
        Trained,
        VariantFacts,
        VariantMeasurements,
    )

__all__ = ["ExportRefused", "export"]

VARIANTS_FILE = "variants.json"
ATTENTION_FILE = "attention.json"
WINDOWS_CHUNK_ROWS = 500
"""Default `chunk_rows` for texts that are read in windows: they are long."""


def export(recipe: Recipe, prepared: Prepared, trained: Trained) -> Exported:
    """Export the model.

    The artifact holds the model folder (`model/`), the facts about every variant tried
    (variants.json) and attention maps for the report (attention.json).

    Raises ExportRefused if fp32, or the variant that the recipe fixes as the default, fails the
    parity check; RecipeError as `check` does.
    """
    check(recipe, prepared)
    return artifacts.make(
        "export",
        key={
            "name": recipe.name,
            "objective": recipe.objective,
            "max_length": recipe.model.max_length,
            "long_text": asdict(windowing.resolve(recipe)),
            "inputs": stored(inputs.resolve(recipe)),
            "export": recipe.export.model_dump(mode="json"),
            "metric": recipe.promote.metric,
            "score": _scoring_defaults(recipe),
            "device": try_variants.device(),
        },
        inputs=[prepared, trained],
        code=[__name__, _harness_module(recipe.objective), *objectives.code(recipe.objective)],
        libraries=[
            "torch",
            "transformers",
            "onnx",
            "onnx-ir",
            "onnxscript",
            "scipy",
            _onnxruntime(),
        ],
        build=partial(_build, recipe, prepared, trained),
    )


def check(recipe: Recipe, prepared: Prepared) -> None:
    """Raise RecipeError for an invalid metric or default, or if the model cannot abstain."""
    if recipe.score.abstain_below and MIN_PROBABILITY not in heads.get(recipe.objective).OPTIONS:
        raise RecipeError(
            f"score.abstain_below: {recipe.objective} models do not abstain; remove it"
        )
    selection.deciding_metric(recipe, prepared.facts["head"])
    default, names = recipe.export.default, variants.names(recipe.export.variants)
    if default not in ("fastest", *names):
        raise RecipeError(
            f"export.default: {default} is not in export.variants ({', '.join(names)}); "
            "add it to the list"
        )


def _onnxruntime() -> str:
    """Return the name of the installed onnxruntime distribution, for GPU or CPU."""
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return "onnxruntime"
    return "onnxruntime-gpu"


def _harness_module(objective: str) -> str:
    """Return the module whose `prepare_harness` makes the harness for the objective's models.

    A harness builds and measures one model's variants.
    """
    generates = objectives.get(objective).GENERATES
    return f"{__package__}.{'decoder_harness' if generates else 'encoder_harness'}"


def _build(recipe: Recipe, prepared: Prepared, trained: Trained, folder: Path) -> ExportedFacts:
    model = folder / "model"
    model.mkdir()
    module = importlib.import_module(_harness_module(recipe.objective))
    harness: ExportHarness = module.prepare_harness(recipe, prepared, trained, model)
    shutil.copy(prepared.path / "tokenizer" / "tokenizer.json", model)
    shutil.copy(prepared.path / training_texts.FILE, model)
    results = [try_variants.try_variant(harness, name, model) for name in harness.names()]
    speeds = try_variants.speeds(harness, results)
    model_manifest = replace(
        _manifest(harness, results, speeds),
        profile=json.loads((prepared.path / "profile.json").read_bytes()),
        training=_lineage(recipe, prepared, trained),
    )
    manifest.write(model, model_manifest)
    _write_golden(harness, model, model_manifest)
    held_out.calibrate(recipe, prepared, model, model_manifest)
    facts: ExportedFacts = {
        "default": model_manifest.default,
        "device": harness.device,
        "threads": harness.threads,
        "rows": len(harness.validation.ids),
        "metric": selection.deciding_metric(recipe, harness.settings)[0],
        "torch": _torch_facts(harness, speeds),
        "variants": [_variant_facts(harness, result, speeds) for result in results],
    }
    write_json(folder / VARIANTS_FILE, facts)
    write_json(folder / ATTENTION_FILE, _attention_maps(harness, prepared))
    return facts


def _attention_maps(harness: ExportHarness, prepared: Prepared) -> AttentionMaps | None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared.path / "tokenizer")
    return attention_maps.extract(harness.model, harness.validation.ids, tokenizer)


# --- the model folder -----------------------------------------------------------------------------


def _manifest(
    harness: ExportHarness, results: Sequence[VariantResult], speeds: Mapping[str, float]
) -> manifest.Manifest:
    """Return the manifest without the data profile and the model's lineage."""
    recipe = harness.recipe
    kept_variants = [
        replace(
            result.variant, measured={**_measurements(result, speeds), "device": harness.device}
        )
        for result in results
        if result.variant
    ]
    kept_variants.sort(key=lambda variant: -speeds[variant.name])
    default = recipe.export.default
    return manifest.Manifest(
        objective=recipe.objective,
        max_length=recipe.model.max_length,
        pad_id=harness.head.pad_id,
        default=kept_variants[0].name if default == "fastest" else default,
        variants=tuple(kept_variants),
        head=harness.settings,
        long_text=asdict(windowing.resolve(recipe)),
        inputs=stored(inputs.resolve(recipe)),
        score=_scoring_defaults(recipe),
        dropped={result.name: result.reason for result in results if result.reason},
    )


def _scoring_defaults(recipe: Recipe) -> dict[str, object]:
    rows = WINDOWS_CHUNK_ROWS if recipe.long_text.in_windows else CHUNK_ROWS
    found = inputs.resolve(recipe)
    columns = inputs.columns_of(recipe, found)
    source = recipe.data.source
    csv = source.csv.model_dump(exclude_none=True) if isinstance(source, FilesSource) else {}
    return {
        **recipe.score.model_dump(mode="json"),
        **({"csv": csv} if csv else {}),
        "chunk_rows": recipe.score.chunk_rows or rows,
        **({"text_column": columns[TEXT]} if found.single else {"columns": columns}),
    }


def _lineage(recipe: Recipe, prepared: Prepared, trained: Trained) -> manifest.Lineage:
    return {
        "recipe": recipe.name,
        "prepared": prepared.digest,
        "trained": trained.digest,
        "salt": recipe.data.splits.salt,
        "test_share": recipe.data.splits.test,
    }


def _write_golden(harness: ExportHarness, model: Path, model_manifest: manifest.Manifest) -> None:
    """Write the golden rows: texts of all lengths, with each variant's outputs.

    The scorer recomputes these outputs when it opens the model.
    """
    texts = harness.golden_texts()
    golden.write(
        model,
        texts,
        {
            variant.name: Scorer(model, variant=variant.name, check=False).golden(texts)
            for variant in model_manifest.variants
        },
    )


# --- the facts ------------------------------------------------------------------------------------


def _variant_facts(
    harness: ExportHarness, result: VariantResult, speeds: Mapping[str, float]
) -> VariantFacts:
    return {
        "name": result.name,
        "status": "refused" if result.reason else "kept",
        "reason": result.reason,
        "size_bytes": result.variant.size_bytes if result.variant else None,
        "disabled_optimizers": list(result.variant.disabled_optimizers) if result.variant else [],
        **_measurements(result, speeds),
        "agreement_of": harness.agreement_of,
    }


def _measurements(result: VariantResult, speeds: Mapping[str, float]) -> VariantMeasurements:
    return {
        "way": result.method,
        "tokens_per_second": round(speeds[result.name], 1) if result.name in speeds else None,
        "agreement": result.parity.agreement if result.parity else None,
        "metric": result.parity.metric if result.parity else None,
        "max_logit_difference": result.parity.max_logit_difference if result.parity else None,
    }


def _torch_facts(harness: ExportHarness, speeds: Mapping[str, float]) -> TorchFacts:
    """Return PyTorch's speed (fp32, and bf16 or None) and metric, from the same run."""
    bf16 = speeds.get("torch bf16")
    return {
        "tokens_per_second": round(speeds["torch fp32"], 1),
        "bf16_tokens_per_second": round(bf16, 1) if bf16 else None,
        "metric": harness.reference,
    }
