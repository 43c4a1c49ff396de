"""The same weights, the same answers: BERT, GPT-2, BART, Marian and torch's own encoder.

The others are made from small configs with random weights; theirs are renamed into ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from headrace.modeling.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from headrace.modeling.models import DecoderForCausalLM, EncoderDecoderForSeq2SeqLM
from headrace.modeling.transformer import Encoder

CLOSE = 1e-5
"""float32 sums in another order, through two layers."""
SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "positions": "learned",
    "scale_embeddings": False,
    "pad_token_id": 1,
}
THEIRS: dict[str, Any] = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "max_position_embeddings": 40, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2,
}  # fmt: skip
RIGHT = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] * 7 + [0] * 2])
LEFT = RIGHT.flip(1)
ALL = torch.ones_like(RIGHT)
PADDINGS = {"none": ALL, "right": RIGHT, "left": LEFT}
padded = pytest.mark.parametrize("padding", PADDINGS)


def ids_for(real: Tensor, seed: int = 0) -> Tensor:
    drawn = torch.randint(3, 50, real.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(real.bool(), drawn, 1)


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """With weights large enough that a mistake shows, biases and norms among them."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            one = 1.0 if "norm" in name.lower() or "ln_" in name else 0.0
            if one == 0.0 or weight.dim() == 1:
                weight.copy_(
                    one * ("weight" in name) + 0.1 * torch.randn(weight.shape, generator=draw)
                )
    return model.eval()


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for old, new in names.items():
            name = re.sub(old, new, name)
        found[name] = value
    return found


def assert_close(found: Tensor, expected: Tensor, real: Tensor) -> None:
    """Where there are tokens: what is made of padding is nobody's business."""
    where = real.bool()
    torch.testing.assert_close(found[where], expected[where], atol=CLOSE, rtol=CLOSE)


# --- encoders -------------------------------------------------------------------------------------

BERT = {
    r"^embeddings\.word_embeddings": "tokens",
    r"^embeddings\.position_embeddings": "positions.table",
    r"^embeddings\.LayerNorm": "norm_embeddings",
    r"^encoder\.layer\.": "layers.",
    r"attention\.self\.": "self_attention.",
    r"attention\.output\.dense": "self_attention.output",
    r"attention\.output\.LayerNorm": "around_self.norm",
    r"intermediate\.dense": "feed_forward.inner",
    r"(?<!self_attention\.)output\.dense": "feed_forward.output",
    r"(\d)\.output\.LayerNorm": r"\1.around_feed_forward.norm",
}


@padded
def test_bert(padding: str) -> None:
    real = PADDINGS[padding]
    shape = {name: value for name, value in SHAPE.items() if name != "positions"}
    theirs = seeded(
        transformers.BertModel(transformers.BertConfig(**shape), add_pooling_layer=False)
    )
    state = dict(theirs.state_dict())
    # All our tokens are of the first type.
    types = state.pop("embeddings.token_type_embeddings.weight")
    table = "embeddings.position_embeddings.weight"
    state[table] = state[table] + types[0]
    state.pop("embeddings.position_ids", None)
    config = EncoderConfig(**SHAPE, norm_first=False, norm_embeddings=True, layer_norm_eps=1e-12)
    mine = Encoder(config, config.num_hidden_layers).eval()
    mine.load_state_dict(renamed(state, BERT))
    # BERT counts padding, and so would count its tokens from elsewhere when it is on the left.
    at = (real.cumsum(-1) - 1).clamp(min=0)
    expected = theirs(ids_for(real), attention_mask=real, position_ids=at).last_hidden_state
    assert_close(mine(ids_for(real), real), expected, real)


@padded
@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_encoder(padding: str, norm_first: bool) -> None:
    real = PADDINGS[padding]
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, activation="relu", batch_first=True, norm_first=norm_first
    )
    theirs = seeded(
        nn.TransformerEncoder(
            layer, 2, nn.LayerNorm(32) if norm_first else None, enable_nested_tensor=False
        )
    )
    config = EncoderConfig(
        **{**SHAPE, "positions": "none"}, norm_first=norm_first, activation="relu"
    )
    mine = Encoder(config, config.num_hidden_layers).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        if "in_proj" in name:
            kind = name.rpartition("_")[2]
            for part, one in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[name.replace(f"in_proj_{kind}", f"{part}.{kind}")] = one
        else:
            state[name] = value
    names = {
        "self_attn": "self_attention", "out_proj": "output", "linear1": "feed_forward.inner",
        "linear2": "feed_forward.output", "norm1": "around_self.norm",
        "norm2": "around_feed_forward.norm",
    }  # fmt: skip
    mine.load_state_dict({**renamed(state, names), "tokens.weight": mine.tokens.weight})
    expected = theirs(mine.tokens(ids_for(real)), src_key_padding_mask=real == 0)
    assert_close(mine(ids_for(real), real), expected, real)


# --- decoders -------------------------------------------------------------------------------------

GPT_2 = {
    r"^transformer\.wte": "decoder.tokens",
    r"^transformer\.wpe": "decoder.positions.table",
    r"^transformer\.ln_f": "decoder.norm",
    r"^transformer\.h\.": "decoder.layers.",
    r"attn\.c_proj": "self_attention.output",
    r"mlp\.c_fc": "feed_forward.inner",
    r"mlp\.c_proj": "feed_forward.output",
    r"ln_1": "around_self.norm",
    r"ln_2": "around_feed_forward.norm",
}


@pytest.fixture(scope="module")
def gpt_2() -> tuple[Any, DecoderForCausalLM]:
    theirs = seeded(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=40,
                bos_token_id=2, eos_token_id=2, pad_token_id=1,
            )
        )
    )  # fmt: skip
    state = {}
    for name, value in theirs.state_dict().items():
        value = value.T if re.search(r"(c_attn|c_proj|c_fc)\.weight", name) else value
        if "c_attn" in name:
            for part, one in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[name.replace("attn.c_attn", f"self_attention.{part}")] = one
        else:
            state[name] = value
    config = DecoderConfig(**SHAPE, activation="gelu_tanh", bos_token_id=2, eos_token_id=2)
    mine = DecoderForCausalLM(config).eval()
    mine.load_state_dict(renamed(state, GPT_2))
    return theirs, mine


@padded
def test_gpt_2(gpt_2: tuple[Any, DecoderForCausalLM], padding: str) -> None:
    theirs, mine = gpt_2
    real = PADDINGS[padding]
    ids = ids_for(real)
    at = (real.cumsum(-1) - 1).clamp(min=0)
    expected = theirs(ids, attention_mask=real, position_ids=at).logits
    assert_close(mine(ids, attention_mask=real).logits, expected, real)
    # A part of it first, the rest with a cache.
    first = mine(ids[:, :5], attention_mask=real[:, :5], use_cache=True)
    rest = mine(ids[:, 5:], attention_mask=real, past_key_values=first.past_key_values)
    assert_close(torch.cat([first.logits, rest.logits], 1), expected, real)


def test_gpt_2_generates_the_same(gpt_2: tuple[Any, DecoderForCausalLM]) -> None:
    theirs, mine = gpt_2
    given = {"input_ids": ids_for(LEFT), "attention_mask": LEFT}
    for how in ({}, {"num_beams": 3}, {"use_cache": False}):
        expected = theirs.generate(**given, max_new_tokens=12, do_sample=False, **how)
        found = mine.generate(**given, max_new_tokens=12, do_sample=False, **how)
        assert found.tolist() == expected.tolist()


# --- encoder and decoder --------------------------------------------------------------------------

SEQ2SEQ = {
    r"^model\.shared": "shared",
    r"^model\.encoder\.": "encoder.stack.",
    r"^model\.decoder\.": "decoder.",
    r"embed_tokens": "tokens",
    r"embed_positions": "positions.table",
    r"layernorm_embedding": "norm_embeddings",
    r"self_attn_layer_norm": "around_self.norm",
    r"encoder_attn_layer_norm": "around_cross.norm",
    r"final_layer_norm": "around_feed_forward.norm",
    r"self_attn\.": "self_attention.",
    r"encoder_attn\.": "cross_attention.",
    r"q_proj": "query",
    r"k_proj": "key",
    r"v_proj": "value",
    r"out_proj": "output",
    r"fc1": "feed_forward.inner",
    r"fc2": "feed_forward.output",
}


@pytest.fixture(scope="module", params=["bart", "marian"])
def seq2seq(request: pytest.FixtureRequest) -> tuple[Any, EncoderDecoderForSeq2SeqLM]:
    bart = request.param == "bart"
    shape = {**SHAPE, "norm_first": False, "num_decoder_layers": 2, "decoder_start_token_id": 2}
    if bart:
        made = transformers.BartConfig(**THEIRS, bos_token_id=0, forced_eos_token_id=None)
        theirs = seeded(transformers.BartForConditionalGeneration(made))
        config = EncoderDecoderConfig(**shape, norm_embeddings=True, eos_token_id=2)
    else:
        made = transformers.MarianConfig(
            **THEIRS, scale_embedding=True, activation_function="swish", forced_eos_token_id=None
        )
        theirs = seeded(transformers.MarianMTModel(made))
        config = EncoderDecoderConfig(
            **{**shape, "scale_embeddings": True}, activation="silu", eos_token_id=2
        )
    state = {k: v for k, v in theirs.state_dict().items() if k != "final_logits_bias"}
    if bart:  # its tables begin with two rows that stand for nothing
        for name in state:
            if "embed_positions" in name:
                state[name] = state[name][2:]
    mine = EncoderDecoderForSeq2SeqLM(config).eval()
    mine.load_state_dict(renamed(state, SEQ2SEQ))
    return theirs, mine


@pytest.mark.parametrize("padding", ["none", "right"])
def test_bart_and_marian(seq2seq: tuple[Any, EncoderDecoderForSeq2SeqLM], padding: str) -> None:
    theirs, mine = seq2seq
    real = PADDINGS[padding]
    given = {"input_ids": ids_for(real), "attention_mask": real}
    target = ids_for(ALL, seed=1)[:, :6]
    expected = theirs(**given, decoder_input_ids=target).logits
    found = mine(**given, decoder_input_ids=target)
    assert_close(found.logits, expected, ALL[:, :6])
    first = mine(**given, decoder_input_ids=target[:, :2], use_cache=True)
    rest = mine(
        **given,
        decoder_input_ids=target[:, 2:],
        encoder_outputs=(first.encoder_last_hidden_state,),
        past_key_values=first.past_key_values,
    )
    assert_close(torch.cat([first.logits, rest.logits], 1), expected, ALL[:, :6])


def test_bart_and_marian_generate_the_same(
    seq2seq: tuple[Any, EncoderDecoderForSeq2SeqLM],
) -> None:
    theirs, mine = seq2seq
    given = {"input_ids": ids_for(RIGHT), "attention_mask": RIGHT}
    for how in ({}, {"num_beams": 3}, {"use_cache": False}):
        expected = theirs.generate(**given, max_new_tokens=12, do_sample=False, **how)
        found = mine.generate(**given, max_new_tokens=12, do_sample=False, **how)
        assert found.tolist() == expected.tolist()


def test_labels_are_learned_one_step_later(
    seq2seq: tuple[Any, EncoderDecoderForSeq2SeqLM],
) -> None:
    theirs, mine = seq2seq
    labels = ids_for(RIGHT, seed=1).masked_fill(RIGHT == 0, -100)
    given = {"input_ids": ids_for(RIGHT), "attention_mask": RIGHT, "labels": labels}
    torch.testing.assert_close(mine(**given).loss, theirs(**given).loss, atol=CLOSE, rtol=0)
