"""Load the model to train with its head, add LoRA adapters, and save it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from headrace.configs.schema import Lora, Model
from headrace.tasks.models import from_config
from headrace.tasks.models.feature_head import FeaturedModel
from headrace.tasks.models.pretrained import SCRATCH, locate
from headrace.tasks.models.window_pooling import DocumentModel
from headrace.tasks.objectives import AnyObjective
from headrace.tasks.objectives.base import Settings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    model: Model, objective: AnyObjective, head: Settings, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load the recipe's model with the objective's head.

    Always in fp32, whatever the checkpoint's dtype: small updates would be lost in rounding.
    Raises RecipeError for a scratch config that is invalid for its model type.
    """
    if model.source == SCRATCH:
        return objective.load_model(from_config.build_config(model, tokenizer), head)
    network = objective.load_model(
        locate(model),
        head,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        dtype=torch.float32,
    )
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    return network


def with_lora(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """Add low-rank adapters to the body's linear layers; the new head is trained in full."""
    from peft import LoraConfig, get_peft_model

    body = body_of(model)
    layers = [
        f"{model.base_model_prefix}.{name}"
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]
    weights = {id(weight) for weight in body.parameters()}  # a tied output layer is not a new head
    heads = [
        name
        for name, child in model.named_children()
        if child is not body and {id(weight) for weight in child.parameters()} - weights
    ]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=layers if lora.target_modules == "all-linear" else lora.target_modules,
        modules_to_save=heads,
    )
    return get_peft_model(model, config)


def body_of(model: PreTrainedModel | PeftModel | DocumentModel) -> nn.Module:
    """Return the part of a model that its head stands on, whatever the model is wrapped in."""
    network = _unwrapped(model)
    if hasattr(network, "get_base_model"):
        network = network.get_base_model()
    body: nn.Module = getattr(network, network.base_model_prefix)
    return body


def _unwrapped(model: nn.Module) -> Any:
    """Return the transformers model; it may have LoRA adapters."""
    while isinstance(model, DocumentModel | FeaturedModel):
        model = model.model
    return model


def head_parameters(model: PreTrainedModel | PeftModel | DocumentModel) -> set[nn.Parameter]:
    """Return the trained weights outside the body: those of a new head."""
    body = set(body_of(model).parameters())  # a tied output layer belongs to the body
    return {weight for weight in model.parameters() if weight.requires_grad} - body


def save(model: PreTrainedModel | PeftModel | DocumentModel, tokenizer: Path, folder: Path) -> None:
    """Save config.json, model.safetensors and the tokenizer's files, with adapters merged.

    No file is a pickle. The folder is written under another name and then renamed.
    """
    network = _unwrapped(model)
    if hasattr(network, "merge_and_unload"):
        network = network.merge_and_unload()
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    network.save_pretrained(aside)
    if isinstance(model, DocumentModel):
        model.save_pool(aside)
    featured = model.model if isinstance(model, DocumentModel) else model
    if isinstance(featured, FeaturedModel):
        featured.save_head(aside)
    shutil.copytree(tokenizer, aside, dirs_exist_ok=True)
    aside.rename(folder)
