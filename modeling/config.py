"""Configs of the Transformers of modeling/, under transformers' usual names.

`strict` checks types on every assignment and needs them as objects, not as strings: do not import
annotations from __future__ here.
"""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class TransformerConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types
    """Fields that encoder, decoder and encoder-decoder have in common."""

    vocab_size: int = 8_000
    hidden_size: int = 256
    """Width of the model."""
    num_hidden_layers: int = 4
    """Number of layers; in an encoder-decoder, those of the encoder."""
    num_attention_heads: int = 4
    intermediate_size: int = 1_024
    """Inner width of the feed-forward networks; SwiGLU uses two thirds of it."""
    max_position_embeddings: int = 512
    """Maximum tokens of a text, if positions are sinusoidal or learned."""
    positions: Literal["sinusoidal", "learned", "rotary", "alibi", "none"] = "sinusoidal"
    """Position encoding; see positions.py."""
    attention_window: int | None = None
    """Reach of attention in either direction (sliding_window.py); None: the whole text."""
    n_global_tokens: int = 0
    """First tokens that attend to the whole text; all others attend to them beside the window."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu"] = "gelu"
    norm_first: bool = True
    """Normalize before each sublayer (pre-norm), not after it (post-norm)."""
    norm_embeddings: bool = False
    scale_embeddings: bool = True
    """Multiply token embeddings by the root of the width (Vaswani et al., 2017, section 3.4). They
    start small enough to serve as the output layer too, and would drown in sinusoids."""
    dropout: float = 0.1
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    classifier_dropout: float = 0.1
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    use_cache: bool = True

    def validate_window(self) -> None:
        """Check the window; `strict` calls methods named validate_... when a config is made."""
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(f"attention_window must be 1 or more, not {self.attention_window}")
        if self.n_global_tokens < 0:
            raise ValueError(f"n_global_tokens must be 0 or more, not {self.n_global_tokens}")


@strict
class EncoderConfig(TransformerConfig):
    """Config of an encoder, for classification and tagging."""

    model_type = "transformer-encoder"


@strict
class DecoderConfig(TransformerConfig):
    """Config of a decoder, for generation."""

    model_type = "transformer-decoder"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]


@strict
class EncoderDecoderConfig(TransformerConfig):
    """Config of an encoder-decoder, for text to text."""

    model_type = "transformer-encoder-decoder"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    num_decoder_layers: int = 4
    is_encoder_decoder: bool = True
    decoder_start_token_id: int | None = None
