"""Encoder and decoder: embeddings, a stack of layers, and the masks of their attention.

For the suffixes of tensor names see attention.py. Texts of a batch are padded to one length, on
either side; `real` is 1 for tokens and 0 for padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from .attention import causal_mask, padding_mask
from .config import TransformerConfig
from .layers import Layer, Memory, SelfAttentionContext
from .positions import POSITIONS
from .sliding_window import AttentionWindow, LocalAttention

if TYPE_CHECKING:
    from transformers import Cache


class Stack(nn.Module):
    """Token embeddings and layers: the common part of encoder and decoder."""

    causal: ClassVar[bool] = False
    """True if no position attends to later ones."""
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(
        self,
        config: TransformerConfig,
        n_layers: int,
        *,
        tokens: nn.Embedding | None = None,
        use_memory: bool = False,
    ) -> None:
        """`tokens`: an embedding to share with another module."""
        super().__init__()
        width = config.hidden_size
        self.tokens = tokens or nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.positions = POSITIONS[config.positions](
            config.max_position_embeddings, width, config.num_attention_heads
        )
        self.scale = math.sqrt(width) if config.scale_embeddings else 1.0
        self.norm_embeddings = (
            nn.LayerNorm(width, eps=config.layer_norm_eps)
            if config.norm_embeddings
            else nn.Identity()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Layer(config, self.positions, index, use_memory=use_memory) for index in range(n_layers)
        )
        # The sums of pre-norm layers have not been normalized yet.
        self.norm = (
            nn.LayerNorm(width, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
        )
        self.reach: AttentionWindow | None = None
        """Window of attention; None: all positions."""
        if config.attention_window is not None:
            self.reach = AttentionWindow(
                config.attention_window, config.n_global_tokens, self.causal
            )
        # transformers' `activation_checkpointing_enable` looks for it, and sets the function.
        self.gradient_checkpointing = False

    def embed(self, ids_bl: Tensor, at_bl: Tensor) -> Tensor:
        """Return the embeddings of tokens at positions: (b, l, w)."""
        x_blw = self.positions.embed(self.tokens(ids_bl) * self.scale, at_bl)
        return self.dropout(self.norm_embeddings(x_blw))

    def through(
        self, ids_bl: Tensor, view: SelfAttentionContext, memory: Memory | None = None
    ) -> Tensor:
        """Return the output of the layers for tokens at the view's positions: (b, l, w)."""
        x_blw = self.embed(ids_bl, view.at_bl)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x_blw = self._gradient_checkpointing_func(layer.__call__, x_blw, view, memory)
            else:
                x_blw = layer(x_blw, view, memory)
        return self.norm(x_blw)

    def view(
        self, real_bs: Tensor, n_queries: int, maps: list[Tensor] | None = None
    ) -> SelfAttentionContext:
        """Return the context of the last `n_queries` positions, counted without padding, from 0."""
        at_bs = (real_bs.long().cumsum(-1) - 1).clamp(min=0)
        at_bl = at_bs[:, -n_queries:]
        mask = padding_mask(real_bs)
        if self.reach is not None:
            is_whole = n_queries == real_bs.shape[1]
            if is_whole and maps is None and not torch.compiler.is_exporting():
                attend = LocalAttention(self.reach, at_bl, real_bs, self.positions)
                return SelfAttentionContext(at_bl=at_bl, mask=mask, attend=attend)
            mask = mask & self.reach.allows(at_bl[:, None, :, None], at_bs[:, None, None, :])
        elif self.causal:
            mask = mask & causal_mask(n_queries, real_bs.shape[1], real_bs.device)
        bias = self.positions.bias(at_bl, at_bs)
        mask = mask if bias is None else torch.where(mask, bias, -math.inf)
        return SelfAttentionContext(at_bl=at_bl, mask=mask, maps=maps)


class Encoder(Stack):
    """Stack in which every position attends to all others."""

    def forward(
        self, ids_bl: Tensor, real_bl: Tensor | None = None, maps: list[Tensor] | None = None
    ) -> Tensor:
        """Return the last layer's output, (b, l, w)."""
        real_bl = torch.ones_like(ids_bl) if real_bl is None else real_bl
        view = self.view(real_bl, ids_bl.shape[1], maps)
        return self.through(ids_bl, view)


class Decoder(Stack):
    """Stack in which a position attends to those before it and to all of the memory, if any."""

    causal = True

    def forward(
        self,
        ids_bl: Tensor,
        real_bs: Tensor | None = None,
        *,
        memory: Memory | None = None,
        cache: Cache | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the last layer's output, (b, l, w).

        `cache`: a transformers Cache of the tokens before these. `real_bs` covers all tokens, those
        in the cache first.
        """
        n_before = 0 if cache is None else cache.get_seq_length()
        if real_bs is None:
            real_bs = ids_bl.new_ones(ids_bl.shape[0], n_before + ids_bl.shape[1])
        view = self.view(real_bs, ids_bl.shape[1], maps)
        view.cache = cache
        return self.through(ids_bl, view, memory)
