"""The model that is trained, as it is saved."""

from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from transformers import AutoModelForSequenceClassification

from headrace.configs.schema import Recipe
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.training import model
from tests.helpers import SAME, built, changed


def test_adapters_are_merged_into_the_saved_model(
    recipe: Recipe, prepared: Artifact, tmp_path: Path
) -> None:
    lora = changed(recipe, model={"lora": {"rank": 4}}, train={"max_steps": 60})
    trainer = built(lora, prepared, tmp_path)
    names = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert any("lora_A" in name for name in names)
    assert any("classifier.modules_to_save" in name for name in names)
    assert not any("classifier" in name and "lora" in name for name in names)
    assert not any("word_embeddings" in name for name in names)
    trainer.train()
    batch = next(iter(trainer.get_eval_dataloader()))
    batch.pop("labels")
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits.numpy()
    model.save(trainer.model, prepared.path / "tokenizer", tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        found = loaded.eval()(**batch).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)
    saved = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    assert not any("lora" in name for name in saved)
    assert "adapter_config.json" not in {file.name for file in (tmp_path / "model").iterdir()}
