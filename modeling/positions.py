"""Position encodings: four ways to give a Transformer the order of tokens, which it cannot see.

An encoding adds to the embeddings, rotates queries and keys, or shifts scores. Each class does one
of these and leaves the other two unchanged. For the suffixes of tensor names see attention.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """No position encoding; base of the others. Positions are integers from 0, (b, l) or (b, s)."""

    def __init__(self, n_positions: int, width: int, n_heads: int) -> None:
        super().__init__()

    def embed(self, x_blw: Tensor, at_bl: Tensor) -> Tensor:
        """Return the token embeddings with positions encoded."""
        return x_blw

    def turn(self, x_bhld: Tensor, at_bl: Tensor) -> Tensor:
        """Return queries or keys with positions encoded."""
        return x_bhld

    def bias(self, at_bl: Tensor, at_bs: Tensor) -> Tensor | None:
        """Return the numbers to add to the scores, (b, h, l, s), if any."""
        return None


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Return sin and cos of each position, wavelengths 2π to 10,000 · 2π: (n_positions, width).

    PE(p, 2i) = sin(p / 10000^(2i/width)), PE(p, 2i+1) = cos(the same); Vaswani et al. (2017),
    section 3.5. A shift by k positions is a rotation that does not depend on the position.
    """
    rates = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(n_positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


def _check_length(at_bl: Tensor, n_positions: int) -> None:
    """Raise ValueError for texts longer than the table of positions."""
    if not torch.compiler.is_exporting() and at_bl.shape[1] > n_positions:
        raise ValueError(
            f"a text of {at_bl.shape[1]} tokens has no place in {n_positions} positions; "
            "raise max_position_embeddings, or take rotary or alibi"
        )


class Sinusoidal(Positions):
    """Adds a fixed pattern to the embeddings (Vaswani et al., 2017, section 3.5)."""

    table: Tensor

    def __init__(self, n_positions: int, width: int, n_heads: int) -> None:
        super().__init__(n_positions, width, n_heads)
        self.register_buffer("table", torch.empty(n_positions, width), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Fill the table, which is not part of a checkpoint."""
        self.table.copy_(sinusoids(*self.table.shape))

    def embed(self, x_blw: Tensor, at_bl: Tensor) -> Tensor:
        _check_length(at_bl, len(self.table))
        return x_blw + self.table[at_bl]


class Learned(Positions):
    """Adds a learned vector for each position (Gehring et al., 2017; BERT, GPT-2)."""

    def __init__(self, n_positions: int, width: int, n_heads: int) -> None:
        super().__init__(n_positions, width, n_heads)
        self.table = nn.Embedding(n_positions, width)

    def embed(self, x_blw: Tensor, at_bl: Tensor) -> Tensor:
        _check_length(at_bl, self.table.num_embeddings)
        return x_blw + self.table(at_bl)


def rotate(x_bhld: Tensor, at_bl: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i+d/2}) by the angle position / 10000^(2i/d).

    Su et al., "RoFormer" (2021), section 3.2.2. The product of a query and a key that are rotated
    this way depends only on their distance.
    """
    half = x_bhld.shape[-1] // 2
    rates_d = 10_000 ** (-torch.arange(half, device=x_bhld.device) / half)
    angles_b1ld = at_bl[:, None, :, None] * rates_d
    cos, sin = angles_b1ld.cos().to(x_bhld.dtype), angles_b1ld.sin().to(x_bhld.dtype)
    first, second = x_bhld[..., :half], x_bhld[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Rotary(Positions):
    """Rotates queries and keys (Su et al., 2021).

    Texts longer than those of training have distances that the model never saw. A window
    (sliding_window.py) keeps attention from reaching that far: long texts then work as well as
    short ones.
    """

    def __init__(self, n_positions: int, width: int, n_heads: int) -> None:
        super().__init__(n_positions, width, n_heads)
        if width // n_heads % 2:
            raise ValueError(
                f"rotary positions turn pairs of numbers, and a head's width is "
                f"{width} / {n_heads} = {width // n_heads}; it has to be even"
            )

    def turn(self, x_bhld: Tensor, at_bl: Tensor) -> Tensor:
        return rotate(x_bhld, at_bl)


def slopes(n_heads: int) -> Tensor:
    """Return 2^(-8/n), 2^(-16/n), ... for n heads, if n is a power of two: (h).

    For other n, return the slopes of the power of two below n, then every second one of the power
    above, as in the authors' code.
    """
    power = 2 ** int(math.log2(n_heads))
    rates = 2.0 ** (-8 / power * torch.arange(1, power + 1))
    if power == n_heads:
        return rates
    return torch.cat([rates, slopes(2 * power)[::2][: n_heads - power]])


class Alibi(Positions):
    """Lowers scores with the distance, in each head at a rate of its own.

    Press et al., "Train Short, Test Long" (2021): there is no maximum position.
    """

    def __init__(self, n_positions: int, width: int, n_heads: int) -> None:
        super().__init__(n_positions, width, n_heads)
        self.n_heads = n_heads

    def bias(self, at_bl: Tensor, at_bs: Tensor) -> Tensor | None:
        distance_b1ls = (at_bl[:, None, :, None] - at_bs[:, None, None, :]).abs()
        return -slopes(self.n_heads).to(at_bl.device)[:, None, None] * distance_b1ls


POSITIONS: dict[str, type[Positions]] = {
    "none": Positions,
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "rotary": Rotary,
    "alibi": Alibi,
}
