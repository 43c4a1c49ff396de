"""What a Transformer of modeling/ is made of, under transformers' usual names.

Types are checked on every assignment, and have to be no strings for that: no annotations from the
future here.
"""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class TransformerConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types
    """The fields that encoder, decoder and both together have in common."""

    vocab_size: int = 8_000
    hidden_size: int = 256
    """Width of the model."""
    num_hidden_layers: int = 4
    """Of an encoder-decoder: of the encoder."""
    num_attention_heads: int = 4
    intermediate_size: int = 1_024
    """Inner width of the feed-forward networks; SwiGLU's is two thirds of it."""
    max_position_embeddings: int = 512
    """Longest text in tokens, where positions are sinusoidal or learned."""
    positions: Literal["sinusoidal", "learned", "rotary", "alibi", "none"] = "sinusoidal"
    """See positions.py."""
    attention_window: int | None = None
    """How far a position looks in either direction (sliding_window.py); None: at the whole text."""
    n_global_tokens: int = 0
    """First tokens that look at the whole text, and that all others look at, beside the window."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu"] = "gelu"
    norm_first: bool = True
    """Normalise in front of each sublayer (pre-norm), not behind it."""
    norm_embeddings: bool = False
    scale_embeddings: bool = True
    """Token embeddings times the root of the width (Vaswani et al., 2017, section 3.4): drawn
    small enough to be an output layer too, they would drown in sinusoids."""
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
        """`strict` runs what is called validate_... when a config is made."""
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(f"attention_window must be 1 or more, not {self.attention_window}")
        if self.n_global_tokens < 0:
            raise ValueError(f"n_global_tokens must be 0 or more, not {self.n_global_tokens}")


@strict
class EncoderConfig(TransformerConfig):
    """For classifying and tagging."""

    model_type = "transformer-encoder"


@strict
class DecoderConfig(TransformerConfig):
    """For generating."""

    model_type = "transformer-decoder"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]


@strict
class EncoderDecoderConfig(TransformerConfig):
    """For text to text."""

    model_type = "transformer-encoder-decoder"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    num_decoder_layers: int = 4
    is_encoder_decoder: bool = True
    decoder_start_token_id: int | None = None
