"""The plots of a run, each drawn twice: for a light page and for a dark one.

They are SVG with text as outlines, so that they look the same everywhere and need no font, and they
are deterministic: drawn again, a plot has the same bytes. Measurements are blue and their reference
is orange: the two are distinguishable with any color vision, and in gray.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType
    from numpy.typing import ArrayLike

    from headrace.tasks.runtime.facts import TrainingEvent

Picture = dict[str, bytes]
"""Theme (`light`, `dark`) to SVG."""
FONT = "DejaVu Sans"
"""Ships with matplotlib."""


@dataclass(frozen=True)
class Theme:
    ink: str
    soft: str
    line: str
    paper: str
    blue: str
    orange: str


LOOKS = {
    "light": Theme("#1d2a33", "#64727c", "#dfe4e6", "#ffffff", "#2166a5", "#c2620a"),
    "dark": Theme("#e3e8eb", "#93a1ab", "#36424b", "#172027", "#6fb1ea", "#f0a04b"),
}


def of_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Picture]:
    """Draw the plots that a metrics.json has numbers for."""
    pictures = {}
    if "confusion" in evaluation:
        pictures["confusion"] = confusion(**evaluation["confusion"])
    if "calibration" in evaluation:
        before = evaluation.get("uncalibrated")
        pictures["calibration"] = reliability(
            evaluation["calibration"]["bins"], before["bins"] if before else None
        )
    if "" in evaluation.get("selective", {}):
        pictures["selective"] = accuracy_by_share(evaluation["selective"][""]["points"])
    return pictures


def write_all(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write each plot to `NAME-LOOK.svg`, once for each look."""
    for name, picture in pictures.items():
        for look, svg in picture.items():
            (folder / f"{name}-{look}.svg").write_bytes(svg)


# --- the plots ------------------------------------------------------------------------------------


def confusion(
    labels: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    down: str = "true",
    across: str = "predicted",
) -> Picture:
    """Draw a confusion matrix: true labels down, predicted labels across.

    Shade: share of the true label's rows; number: rows. `down`, `across`: names of the axes.
    """
    table = np.asarray(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    k = len(labels)
    names = [tick_name(i, label) for i, label in enumerate(labels)]
    side = min(9.4, 1.5 + 0.62 * k + 0.05 * max(map(len, names)))
    size = max(6.0, min(9.0, 130 / k))

    def draw(axes: Axes, look: Theme) -> None:
        ramp = _ramp(look.paper, look.blue)
        axes.imshow(shares, cmap=ramp, vmin=0, vmax=1)
        for row, column in np.argwhere(table > 0):
            cell = ramp(shares[row, column])
            number = axes.text(
                column,
                row,
                f"{table[row, column]}",
                ha="center",
                va="center",
                fontsize=size,
                color=max(look.paper, look.ink, key=lambda colour: _contrast(colour, cell)),
            )
            number.set_in_layout(False)  # inside the axes: measuring only costs time
        axes.set_xticks(range(k), names, rotation=45 if k > 3 else 0, fontsize=min(9, size + 2))
        if k > 3:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), names, fontsize=min(9, size + 2))
        axes.set(xlabel=across, ylabel=down)
        axes.set_xticks(np.arange(k - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)
        axes.grid(which="minor", color=look.paper, linewidth=1.5)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)

    return _render(draw, (side, side))


def reliability(
    bins: Sequence[Mapping[str, float]], before: Sequence[Mapping[str, float]] | None = None
) -> Picture:
    """Draw accuracy by confidence of the decision, with the 95% interval of each bin.

    `before`: the bins before calibration.
    """
    confidence = np.array([entry["confidence"] for entry in bins])
    accuracy = np.array([entry["accuracy"] for entry in bins])
    low_errors = accuracy - [entry["low"] for entry in bins]
    high_errors = [entry["high"] for entry in bins] - accuracy
    old = [(entry["confidence"], entry["accuracy"]) for entry in before or []]
    lowest = min(confidence.min(), (accuracy - low_errors).min(), *(min(pair) for pair in old))
    start = max(0.0, lowest - 0.03)

    def draw(axes: Axes, look: Theme) -> None:
        axes.plot([start, 1], [start, 1], color=look.soft, linewidth=1, linestyle=(0, (4, 3)))
        if old:
            axes.plot(
                *zip(*old, strict=True),
                "o-",
                color=look.orange,
                markersize=3,
                linewidth=1,
                label="before calibration",
            )
        axes.errorbar(
            confidence,
            accuracy,
            yerr=[np.maximum(low_errors, 0), np.maximum(high_errors, 0)],
            color=look.blue,
            fmt="o-",
            markersize=4,
            linewidth=1.4,
            elinewidth=0.9,
            label="calibrated",
        )
        if old:
            axes.legend(frameon=False, labelcolor=look.ink, fontsize=8, loc="upper left")
        axes.set(xlabel="confidence", ylabel="accuracy", aspect="equal")
        axes.set(xlim=(start, 1.02), ylim=(start, 1.02))

    return _render(draw, (4.4, 4.4))


def accuracy_by_share(points: Sequence[Mapping[str, float]]) -> Picture:
    """Draw the accuracy of the most confident decisions by their share, with 95% intervals."""
    share, accuracy, low, high = (
        np.array([point[name] for point in points]) for name in ("share", "accuracy", "low", "high")
    )

    def draw(axes: Axes, look: Theme) -> None:
        axes.fill_between(share, low, high, color=look.blue, alpha=0.15, linewidth=0)
        axes.plot(share, accuracy, color=look.blue, linewidth=1.4)
        axes.set(xlabel="share of rows decided", ylabel="accuracy of these", xlim=(0, 1.02))
        axes.set_ylim(top=1.005)

    return _render(draw, (4.4, 3.4))


def histogram(bins: Mapping[str, Sequence[int]], *, xlabel: str, ylabel: str) -> Picture:
    """Draw one or two series of counts, each of equal bins from 0 to 1, on a logarithmic scale."""

    def draw(axes: Axes, look: Theme) -> None:
        for (name, counts), color in zip(bins.items(), (look.blue, look.orange), strict=False):
            edges = np.linspace(0, 1, len(counts) + 1)
            axes.stairs(counts, edges, color=color, linewidth=1.4, label=name)
        axes.set_yscale("symlog", linthresh=1)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, labelcolor=look.ink, fontsize=8)

    return _render(draw, (6.0, 2.8))


def training_curve(events: Sequence[TrainingEvent], metric: str) -> Picture:
    """Draw losses by step, and above them the validation metric if it is another."""
    losses = [(e["step"], e["loss"]) for e in events if e.get("loss") is not None]
    evaluations = [(e["step"], e["validation"]) for e in events if e.get("validation")]
    scores = [(step, values[metric]) for step, values in evaluations if metric in values]
    validation = [(step, values["loss"]) for step, values in evaluations if "loss" in values]

    def draw(axes: Any, look: Theme) -> None:
        lower = axes
        if metric != "loss":
            upper, lower = axes
            if scores:
                upper.plot(*zip(*scores, strict=True), "o-", color=look.blue, markersize=4)
            upper.set(ylabel=f"validation {metric}")
            upper.tick_params(labelbottom=False)
        if losses:
            lower.plot(*zip(*losses, strict=True), color=look.orange, linewidth=1, label="training")
        if validation:
            lower.plot(
                *zip(*validation, strict=True),
                "o-",
                color=look.blue,
                markersize=4,
                label="validation",
            )
        lower.set(xlabel="step", ylabel="loss")
        if losses or validation:
            lower.set_ylim(bottom=0)
            lower.legend(frameon=False, labelcolor=look.ink, fontsize=8)

    return _render(draw, (5.4, 2.8)) if metric == "loss" else _render(draw, (5.4, 4.4), rows=2)


def attention_map(weights: ArrayLike, looking: Sequence[str], looked_at: Sequence[str]) -> Picture:
    """Draw attention weights (l, s): rows are tokens that attend, columns tokens attended to."""
    shares = np.asarray(weights)
    row_names, column_names = (
        [tick_name(i, token) for i, token in enumerate(names)] for names in (looking, looked_at)
    )

    def draw(axes: Axes, look: Theme) -> None:
        axes.imshow(shares, cmap=_ramp(look.paper, look.blue), vmin=0)
        axes.set_xticks(
            range(len(column_names)), column_names, rotation=60, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(row_names)), row_names)
        axes.set(xlabel="attended to", ylabel="attending")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return _render(draw, (1.6 + 0.3 * len(column_names), 1.6 + 0.3 * len(row_names)))


def attention_heads(shares: ArrayLike) -> Picture:
    """Draw all maps (layers, heads, l, s), small: one row per layer, the first layer on top.

    Each map has its own scale: it shows where its head attends, not how strongly.
    """
    maps = np.asarray(shares)
    n_layers, n_heads, length, width = maps.shape
    edge = 0.06 * max(length, width)  # between two maps

    def draw(axes: Axes, look: Theme) -> None:
        for layer, head in np.ndindex(n_layers, n_heads):
            left, top = head * (width + edge), layer * (length + edge)
            axes.imshow(
                maps[layer, head],
                cmap=_ramp(look.paper, look.blue),
                vmin=0,
                extent=(left, left + width, top + length, top),
            )
            sides = [(left, top), (left + width, top), (left + width, top + length)]
            corners = [*sides, (left, top + length), (left, top)]
            axes.plot(*zip(*corners, strict=True), color=look.line, linewidth=0.8)
        margin = edge / 4
        axes.set_xlim(-margin, n_heads * (width + edge) - edge + margin)
        axes.set_ylim(n_layers * (length + edge) - edge + margin, -margin)
        middles = [i * (length + edge) + length / 2 for i in range(n_layers)]
        axes.set_yticks(middles, [f"layer {i + 1}" for i in range(n_layers)])
        middles = [i * (width + edge) + width / 2 for i in range(n_heads)]
        axes.set_xticks(middles, [f"head {i + 1}" for i in range(n_heads)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    map_width = min(2.0, 9.0 / n_heads)
    return _render(draw, (0.8 + map_width * n_heads, 0.6 + map_width * n_layers * length / width))


def pattern(table: ArrayLike, *, xlabel: str, ylabel: str) -> Picture:
    """Draw numbers from -1 to 1, (rows, columns): orange below zero, blue above."""

    def draw(axes: Axes, look: Theme) -> None:
        ramp = _ramp(look.orange, look.paper, look.blue)
        axes.imshow(np.asarray(table), cmap=ramp, vmin=-1, vmax=1, aspect="auto")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.spines[:].set_visible(False)

    return _render(draw, (6.0, 3.4))


def curve(values: Sequence[float], *, xlabel: str, ylabel: str) -> Picture:
    def draw(axes: Axes, look: Theme) -> None:
        axes.plot(range(1, len(values) + 1), values, color=look.blue, linewidth=1.2)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_ylim(bottom=0)

    return _render(draw, (6.0, 2.8))


# --- drawing --------------------------------------------------------------------------------------


def _render(
    draw: Callable[[Any, Theme], None], inches: tuple[float, float], *, rows: int = 1
) -> Picture:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    picture = {}
    for name, look in LOOKS.items():
        with rc_context(_style(look)):
            figure = Figure(figsize=inches, layout="constrained")
            FigureCanvasSVG(figure)
            draw(figure.subplots(rows, sharex=True), look)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        picture[name] = buffer.getvalue()
    return picture


def _style(look: Theme) -> dict[str, object]:
    return {
        "svg.hashsalt": "headrace",
        "svg.fonttype": "path",
        "text.parse_math": False,  # a label may contain a dollar sign
        "font.family": FONT,
        "font.size": 9,
        "text.color": look.ink,
        "axes.labelcolor": look.soft,
        "axes.edgecolor": look.line,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": look.soft,
        "ytick.color": look.soft,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    }


def _ramp(*colours: str) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ramp", colours)


def _contrast(ink: ColorType, paper: ColorType) -> float:
    """Return the contrast ratio of two colors, 1 to 21 (WCAG 2.2)."""
    from matplotlib.colors import to_rgb

    def luminance(colour: ColorType) -> float:
        rgb = np.asarray(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(ink), luminance(paper)])
    return (high + 0.05) / (low + 0.05)


def tick_name(number: int, label: str, max_chars: int = 16) -> str:
    """Cut a label to the room of a tick; `#number` if the font lacks one of its characters."""
    if not set(map(ord, label)) <= _drawable():
        return f"#{number}"
    return label if len(label) <= max_chars else label[: max_chars - 1] + "…"


@cache
def _drawable() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())
