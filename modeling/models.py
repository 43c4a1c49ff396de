"""The Transformers of modeling/ as transformers models: saved, loaded, trained and run like others.

Importing this module registers them with the Auto classes, for calls such as
AutoModelForCausalLM.from_config(DecoderConfig()).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DynamicCache,
    EncoderDecoderCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutputWithPast,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput

from .attention import padding_mask
from .config import DecoderConfig, EncoderConfig, EncoderDecoderConfig, TransformerConfig
from .layers import Memory
from .positions import Sinusoidal
from .transformer import Decoder, Encoder

if TYPE_CHECKING:
    from transformers import Cache

IGNORE_INDEX = -100
"""Label of positions that the loss ignores."""


class _Model(PreTrainedModel):  # type: ignore[misc]  # transformers has no types
    config: TransformerConfig
    config_class = TransformerConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize as in Glorot and Bengio (2010), like the code of the first Transformer."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.hidden_size**-0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Sinusoidal):
            module.reset()


# --- encoder --------------------------------------------------------------------------------------


class _EncoderModel(_Model):
    config_class = EncoderConfig
    base_model_prefix = "encoder"
    output_class: type[ModelOutput]

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config, config.num_hidden_layers)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.encoder.tokens = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool = False,
        **options: object,
    ) -> ModelOutput:
        maps: list[Tensor] | None = [] if output_attentions else None
        logits = self.classifier(self.dropout(self.classified(input_ids, attention_mask, maps)))
        loss = None if labels is None else self.loss(labels, logits)
        return self.output_class(loss=loss, logits=logits, attentions=_tuple(maps))

    def loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Return transformers' own loss, whose argument order differs between kinds of model."""
        raise NotImplementedError

    def classified(
        self, ids_bl: Tensor, real_bl: Tensor | None, maps: list[Tensor] | None
    ) -> Tensor:
        """Return the vectors to classify: one per token (b, l, w), or one per text (b, w)."""
        x_blw: Tensor = self.encoder(ids_bl, real_bl, maps)
        return x_blw


class EncoderForSequenceClassification(_EncoderModel):
    """Classifier of texts, by the encoder's output for the first token."""

    output_class = SequenceClassifierOutput

    def loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        return self.loss_function(labels, logits, self.config)

    def classified(
        self, ids_bl: Tensor, real_bl: Tensor | None, maps: list[Tensor] | None
    ) -> Tensor:
        return super().classified(ids_bl, real_bl, maps)[:, 0]


class EncoderForTokenClassification(_EncoderModel):
    """Classifier of tokens."""

    output_class = TokenClassifierOutput

    def loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        return self.loss_function(logits, labels, self.config)


# --- decoder --------------------------------------------------------------------------------------


class DecoderForCausalLM(_Model, GenerationMixin):  # type: ignore[misc]
    """Generative model that predicts the next token of a text (Radford et al., 2018)."""

    config_class = DecoderConfig
    base_model_prefix = "decoder"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "decoder.tokens.weight"}

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.decoder = Decoder(config, config.num_hidden_layers)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.decoder.tokens = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        logits_to_keep: int = 0,
        **options: object,
    ) -> CausalLMOutputWithPast:
        """`labels` are the ids themselves; the loss shifts them to the next position."""
        if past_key_values is None and use_cache and labels is None:
            past_key_values = DynamicCache(config=self.config)
        maps: list[Tensor] | None = [] if output_attentions else None
        x_blw = self.decoder(input_ids, attention_mask, cache=past_key_values, maps=maps)
        logits = self.lm_head(x_blw[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **options)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=past_key_values, attentions=_tuple(maps)
        )


# --- encoder and decoder --------------------------------------------------------------------------


class _EncoderHalf(_Model):
    """Encoder in the form that `generate` calls."""

    def __init__(self, config: EncoderDecoderConfig, tokens: nn.Embedding) -> None:
        super().__init__(config)
        self.stack = Encoder(config, config.num_hidden_layers, tokens=tokens)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        **options: object,
    ) -> BaseModelOutput:
        maps: list[Tensor] | None = [] if output_attentions else None
        x_bsw = self.stack(input_ids, attention_mask, maps)
        return BaseModelOutput(last_hidden_state=x_bsw, attentions=_tuple(maps))


class EncoderDecoderForSeq2SeqLM(_Model, GenerationMixin):  # type: ignore[misc]
    """Text to text: the Transformer as it was first described (Vaswani et al., 2017)."""

    config_class = EncoderDecoderConfig
    base_model_prefix = "model"
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "encoder.stack.tokens.weight": "shared.weight",
        "decoder.tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    }

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.encoder = _EncoderHalf(config, self.shared)
        self.decoder = Decoder(
            config, config.num_decoder_layers, tokens=self.shared, use_memory=True
        )
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_encoder(self, *_: object, **__: object) -> nn.Module:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        return self.shared

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.shared = self.encoder.stack.tokens = self.decoder.tokens = value

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the labels shifted one step to the right, after the start token."""
        ids = labels.new_full(labels.shape, self.config.decoder_start_token_id)
        ids[:, 1:] = labels[:, :-1]
        return ids.masked_fill(ids == IGNORE_INDEX, self.config.pad_token_id or 0)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **options: object,
    ) -> Seq2SeqLMOutput:
        """`labels` are the ids of the target, with IGNORE_INDEX for padding.

        `num_items_in_batch`: divisor of the summed losses, if this is a part of a batch.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, output_attentions)
        if decoder_input_ids is None and labels is not None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if past_key_values is None and use_cache and labels is None:
            past_key_values = EncoderDecoderCache(
                DynamicCache(config=self.config), DynamicCache(config=self.config)
            )
        maps: list[Tensor] | None = [] if output_attentions else None
        cross_maps: list[Tensor] | None = [] if output_attentions else None
        memory = _memory(encoder_outputs[0], attention_mask, past_key_values, cross_maps)
        x_blw = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            memory=memory,
            cache=past_key_values and past_key_values.self_attention_cache,
            maps=maps,
        )
        logits = self.lm_head(x_blw)
        loss = None if labels is None else _target_loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
            decoder_attentions=_tuple(maps),
            cross_attentions=_tuple(cross_maps),
            encoder_last_hidden_state=memory.x_bsw,
            encoder_attentions=getattr(encoder_outputs, "attentions", None),
        )


def _memory(
    x_bsw: Tensor,
    real_bs: Tensor | None,
    cache: EncoderDecoderCache | None,
    maps: list[Tensor] | None,
) -> Memory:
    real_bs = x_bsw.new_ones(x_bsw.shape[:2]) if real_bs is None else real_bs
    return Memory(x_bsw=x_bsw, mask=padding_mask(real_bs), cache=cache, maps=maps)


def _target_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Return the mean over the labels, or their sum divided by `num_items_in_batch`."""
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="mean" if num_items_in_batch is None else "sum",
    )
    return loss / (1 if num_items_in_batch is None else num_items_in_batch)


def _tuple(maps: list[Tensor] | None) -> tuple[Tensor, ...] | None:
    return None if maps is None else tuple(maps)


for _config in (EncoderConfig, DecoderConfig, EncoderDecoderConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
for _auto, _config, _model in (
    (AutoModelForSequenceClassification, EncoderConfig, EncoderForSequenceClassification),
    (AutoModelForTokenClassification, EncoderConfig, EncoderForTokenClassification),
    (AutoModelForCausalLM, DecoderConfig, DecoderForCausalLM),
    (AutoModelForSeq2SeqLM, EncoderDecoderConfig, EncoderDecoderForSeq2SeqLM),
):
    _auto.register(_config, _model, exist_ok=True)
