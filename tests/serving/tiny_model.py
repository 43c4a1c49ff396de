"""A model folder made in milliseconds, whose answers can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from headrace.serving.engine import golden, manifest
from headrace.serving.engine.scorer import Scorer
from headrace.serving.heads.tagging import tags_of
from headrace.serving.text.features import Feature
from headrace.serving.text.inputs import Inputs, inputs_of, stored

LABELS = ["food", "space", "sport"]
WORDS = {
    "food": ["soup", "bread", "oven", "salt", "butter"],
    "space": ["orbit", "rocket", "moon", "planet", "comet"],
    "sport": ["goal", "match", "team", "coach", "league"],
}
FILLER = ["the", "a", "one", "this", "near", "under", "old", "bright"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = {
    word: i for i, word in enumerate([*SPECIAL, *(w for ws in WORDS.values() for w in ws), *FILLER])
}


def tokenizer() -> Tokenizer:
    one = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    one.normalizer = normalizers.Lowercase()
    one.pre_tokenizer = pre_tokenizers.Whitespace()
    one.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return one


def graph(weights: np.ndarray) -> onnx.ModelProto:
    """Logits = masked mean of the tokens' rows of `weights` (vocabulary, labels)."""
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=f32),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "tokens"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["logits"]),
    ]
    shape = ["batch", "length"]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "bag of words",
            [helper.make_tensor_value_info(n, i64, shape) for n in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info("logits", f32, ["batch", len(LABELS)])],
            [
                numpy_helper.from_array(weights.astype(np.float32), "weights"),
                numpy_helper.from_array(np.array([-1], np.int64), "last"),
                numpy_helper.from_array(np.array([1], np.int64), "tokens"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def with_features(model: onnx.ModelProto, weights: np.ndarray) -> onnx.ModelProto:
    """Add to a graph an input `features`, (batch, width), that moves its logits by `weights`."""
    main, (width, n_labels) = model.graph, weights.shape
    main.node[-1].output[0] = "of_text"
    main.node.extend(
        [
            helper.make_node("MatMul", ["features", "feature_weights"], ["of_features"]),
            helper.make_node("Add", ["of_text", "of_features"], ["logits"]),
        ]
    )
    shape = ["batch", width]
    main.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
    main.initializer.append(numpy_helper.from_array(weights.astype(np.float32), "feature_weights"))
    assert n_labels == len(LABELS)
    return model


def bag_of_words() -> np.ndarray:
    """(vocabulary, labels): 3 for a label's own words, 0 elsewhere."""
    weights = np.zeros((len(VOCABULARY), len(LABELS)))
    for k, label in enumerate(LABELS):
        weights[[VOCABULARY[word] for word in WORDS[label]], k] = 3
    return weights


def make_model(
    folder: Path, providers: tuple[str, ...] = ("CPUExecutionProvider",), **changes: Any
) -> Path:
    """A model folder with the variants fp32 (default) and fused; `changes` go into its manifest."""
    folder.mkdir(parents=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    variants = tuple(
        manifest.Variant(name, f"{name}/model.onnx", providers) for name in ("fp32", "fused")
    )
    for variant in variants:
        (folder / variant.name).mkdir()
        one = graph(bag_of_words())
        if inputs_of(changes.get("inputs", {})).features:
            one = with_features(one, FEATURE_WEIGHTS)
        onnx.save(one, str(folder / variant.file))
    whole = manifest.Manifest(
        objective="classification",
        max_length=16,
        pad_id=0,
        default="fp32",
        variants=variants,
        head={"labels": LABELS},
    )
    manifest.write(folder, replace(whole, **changes))
    write_golden(folder)
    return folder


def write_golden(folder: Path) -> None:
    """Golden rows of the graphs as they are."""
    one_by_one = ["the goal of the match", "soup", "moon near a planet", "one old coach with salt"]
    inputs = inputs_of(manifest.read(folder).inputs)
    texts: list[Any] = one_by_one
    if not inputs.single:
        features = {feature.name: None for feature in inputs.features}
        texts = [{**dict.fromkeys(inputs.names, text), **features} for text in one_by_one]
    outputs = Scorer(folder, check=False).outputs(texts, token_budget=golden.TOKEN_BUDGET)
    golden.write(folder, texts, {"fp32": outputs, "fused": outputs})


def make_pair_model(folder: Path, **changes: Any) -> Path:
    """A model folder of pairs, trained on the columns `first` and `second`."""
    columns = {"text": "first", "text_pair": "second"}
    return make_model(
        folder, **{"inputs": stored(Inputs(pair=True)), "score": {"columns": columns}, **changes}
    )


AMOUNT = Feature("amount", "number", mean=10.0, std=5.0)
SHOP = Feature("shop", "category", values=("north", "south"))
FEATURES = {
    "inputs": stored(Inputs(pair=True, features=(AMOUNT, SHOP))),
    "score": {"columns": {"text": "a", "text_pair": "b", "amount": "amount", "shop": "shop"}},
}
"""Fields of the manifest of a model of pairs, columns `a` and `b`, with features beside them."""
FEATURE_WEIGHTS = np.zeros((AMOUNT.width + SHOP.width, len(LABELS)))
FEATURE_WEIGHTS[0, LABELS.index("sport")] = 9
FEATURE_WEIGHTS[2, LABELS.index("space")] = 9
"""A high amount says sport, the shop `north` space; what is missing or unknown says nothing."""


def make_tagger(folder: Path) -> Path:
    """A model folder that finds the words of WORDS, each a span by itself."""
    folder.mkdir(parents=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    tags = tags_of(LABELS, "BIO")
    weights = np.zeros((len(VOCABULARY), len(tags)), np.float32)
    weights[:, 0] = 3
    for label, words in WORDS.items():
        weights[[VOCABULARY[word] for word in words], tags.index(f"B-{label}")] = 9
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    shape = ["batch", "length", len(tags)]
    one = helper.make_graph(
        [helper.make_node("Gather", ["weights", "input_ids"], ["logits"])],
        "tags of words",
        [ids],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = helper.make_opsetid("", 17)
    (folder / "fp32").mkdir()
    onnx.save(
        helper.make_model(one, opset_imports=[opset], ir_version=8),
        str(folder / "fp32" / "model.onnx"),
    )
    variant = manifest.Variant("fp32", "fp32/model.onnx", ("CPUExecutionProvider",))
    head = {"labels": LABELS, "scheme": "BIO"}
    manifest.write(
        folder,
        manifest.Manifest(
            objective="tagging", max_length=16, pad_id=0, default="fp32", variants=(variant,),
            head=head,
        ),
    )  # fmt: skip
    texts = ["the goal of the match", "soup"]
    golden.write(folder, texts, {"fp32": Scorer(folder, check=False).golden(texts)})
    return folder
