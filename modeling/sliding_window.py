"""Sliding-window attention: positions attend to their neighborhood, and a few to everything.

Beltagy et al., "Longformer: The Long-Document Transformer" (2020), section 3.1. Positions are cut
into blocks as long as the reach of the window. The queries of a block then find all their keys in
three blocks, and time and memory grow with the length, not with its square. For the suffixes of
tensor names see attention.py; in addition:

    n  blocks                   c  positions of a block, which is the reach of the window
    g  global positions: the first ones of a text
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import fused_attention
from .positions import Positions


@dataclass(frozen=True)
class AttentionWindow:
    """Reach of a position in either direction, and the number of global positions.

    The global positions are the first ones: they attend to all positions, and all attend to them.
    `causal`: no position attends to later ones.
    """

    window: int
    n_global: int = 0
    causal: bool = False

    def allows(self, at_q: Tensor, at_k: Tensor) -> Tensor:
        """Return which queries may attend to which keys; the two shapes broadcast."""
        near = (at_q - at_k).abs() <= self.window
        near = near | (at_k < self.n_global) | (at_q < self.n_global)
        return near & (at_k <= at_q) if self.causal else near


@dataclass(frozen=True)
class LocalAttention:
    """`fused_attention` under the mask of an AttentionWindow, block by block; an `Attend`.

    Made for one batch, since it holds the positions of its tokens.
    """

    reach: AttentionWindow
    at_bl: Tensor
    """Positions, counted from the first token of each text."""
    real_bl: Tensor
    """1 for tokens, 0 for padding."""
    positions: Positions

    def __call__(
        self,
        q_bhld: Tensor,
        k_bhld: Tensor,
        v_bhld: Tensor,
        mask: Tensor | None = None,
        *,
        dropout: float = 0.0,
    ) -> Tensor:
        """Return (b, h, l, d); `mask` is ignored. Results at padding are meaningless."""
        near_bhld = self._near(q_bhld, k_bhld, v_bhld, dropout)
        if not self.reach.n_global:
            return near_bhld
        return self._with_global_rows(near_bhld, q_bhld, k_bhld, v_bhld, dropout)

    def _near(self, q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, dropout: float) -> Tensor:
        """Let each position attend to its neighborhood and to the global positions."""
        length, c = q_bhld.shape[2], self.reach.window
        n_extra = -length % c
        at_bl, real_bl = (F.pad(x, (0, n_extra)) for x in (self.at_bl, self.real_bl.bool()))
        at_bkn, real_bkn = (torch.cat(_neighbours(x, c), 2) for x in (at_bl, real_bl))
        k_parts, v_parts = (_neighbours(F.pad(x, (0, 0, 0, n_extra)), c) for x in (k_bhld, v_bhld))
        at_bqn = _blocks(at_bl, c)
        queries, keys = at_bqn[..., :, None], at_bkn[..., None, :]
        block_mask = self.reach.allows(queries, keys) & real_bkn[..., None, :]
        if self.reach.n_global:
            # Global keys are appended to the three blocks, and must not be counted twice.
            block_mask = block_mask & (keys >= self.reach.n_global)
            indices_bg, real_bg = self._global_positions()
            at_g = torch.arange(indices_bg.shape[1], device=at_bl.device)
            global_mask = self.reach.allows(queries, at_g) & real_bg[:, None, None, :]
            block_mask = torch.cat([block_mask, global_mask], -1)
            n_blocks = at_bqn.shape[1]
            for parts, x in ((k_parts, k_bhld), (v_parts, v_bhld)):
                parts.append(_rows(x, indices_bg)[:, :, None].expand(-1, -1, n_blocks, -1, -1))
            at_bkn = torch.cat([at_bkn, at_g.expand(*at_bkn.shape[:2], -1)], -1)
        bias = self.positions.bias(at_bqn.flatten(0, 1), at_bkn.flatten(0, 1))
        mask = block_mask.flatten(0, 1)[:, None]
        q_bhnqd = _blocks(F.pad(q_bhld, (0, 0, 0, n_extra)), c)
        k_bhnkd, v_bhnkd = (torch.cat(parts, 3) for parts in (k_parts, v_parts))
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_bhnqd, k_bhnkd, v_bhnkd))
        attn_mask = mask if bias is None else torch.where(mask, bias, -torch.inf)
        output = fused_attention(q, k, v, attn_mask, dropout=dropout)
        blocks = output.view(len(q_bhld), -1, *output.shape[1:]).transpose(1, 2)
        return blocks.flatten(2, 3)[:, :, :length]

    def _with_global_rows(
        self, x_bhld: Tensor, q_bhld: Tensor, k_bhld: Tensor, v_bhld: Tensor, dropout: float
    ) -> Tensor:
        """Let the global positions attend to all others: few rows, each as long as the text."""
        indices_bg, exists_bg = self._global_positions()
        at_bg = self.at_bl.gather(1, indices_bg)
        reach_mask = self.reach.allows(at_bg[:, :, None], self.at_bl[:, None, :])
        mask = (reach_mask & self.real_bl.bool()[:, None, :])[:, None]
        bias = self.positions.bias(at_bg, self.at_bl)
        rows = fused_attention(
            _rows(q_bhld, indices_bg),
            k_bhld,
            v_bhld,
            mask if bias is None else torch.where(mask, bias, -torch.inf),
            dropout=dropout,
        )
        # Global positions that a short text lacks go to an extra position, which is cut off.
        length = x_bhld.shape[2]
        targets_bg = torch.where(exists_bg, indices_bg, length)
        index = targets_bg[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3])
        return F.pad(x_bhld, (0, 0, 0, 1)).scatter(2, index, rows)[:, :, :length]

    def _global_positions(self) -> tuple[Tensor, Tensor]:
        """Return (b, g): indices of the global positions in each row, and whether they exist."""
        length = self.at_bl.shape[1]
        first_b1 = self.real_bl.long().argmax(1, keepdim=True)
        steps = torch.arange(min(self.reach.n_global, length), device=self.at_bl.device)
        indices_bg = (first_b1 + steps).clamp(max=length - 1)
        exists_bg = (first_b1 + steps < length) & self.real_bl.bool().gather(1, indices_bg)
        return indices_bg, exists_bg


def _rows(x_bhld: Tensor, indices_bg: Tensor) -> Tensor:
    """Select positions of each row: (b, h, g, d)."""
    index = indices_bg[:, None, :, None].expand(-1, x_bhld.shape[1], -1, x_bhld.shape[3])
    return x_bhld.gather(2, index)


def _blocks(x: Tensor, c: int) -> Tensor:
    """Cut into blocks: (b, l) to (b, n, c), (b, h, l, d) to (b, h, n, c, d)."""
    axis = 1 if x.ndim == 2 else 2
    return x.reshape(*x.shape[:axis], -1, c, *x.shape[axis + 1 :])


def _neighbours(x: Tensor, c: int) -> list[Tensor]:
    """Return for each block the one before, itself, and the one after, with zeros at the ends.

    Each is cut like `_blocks`: (b, l) to (b, n, c), (b, h, l, d) to (b, h, n, c, d).
    """
    axis = 1 if x.ndim == 2 else 2
    padding = (c, c) if x.ndim == 2 else (0, 0, c, c)
    blocks = _blocks(F.pad(x, padding), c)
    n = blocks.shape[axis] - 2
    return [blocks.narrow(axis, step, n) for step in range(3)]
