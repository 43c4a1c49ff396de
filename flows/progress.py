"""Progress of long work: a bar on a terminal, plain lines elsewhere, and an artifact in Prefect."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 5.0

Event = dict[str, Any]


class Paced:
    """Calls through at most once in `every_s` seconds."""

    def __init__(self, call: Callable[..., None], every_s: float) -> None:
        self._call, self._every_s, self._last = call, every_s, float("-inf")

    def __call__(self, *args: Any) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._call(*args)


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields `advance(done, total, note)`."""
    if not sys.stderr.isatty():

        def say(done: int, total: int, note: str) -> None:
            log.info("%s: %s of %s %s, %s", title, f"{done:,}", f"{total:,}", unit, note)

        yield Paced(say, LINE_EVERY_S)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None, note="")
        yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)


@contextmanager
def of_training(run_id: str) -> Iterator[Callable[[Event], None]]:
    """Yields what `train` calls with each event: to the terminal, MLflow and Prefect."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    from tasks import tracking

    artifact: list[UUID] = []

    def to_prefect(share: float) -> None:
        percent = round(100 * share, 1)
        if artifact:
            update_progress_artifact(artifact_id=artifact[0], progress=percent)
        else:
            made = create_progress_artifact(progress=percent, description="Training")
            artifact.append(made if isinstance(made, UUID) else UUID(str(made)))

    paced = Paced(to_prefect, ARTIFACT_EVERY_S)
    latest: dict[str, str] = {}
    with bar("train", "steps") as advance:

        def on_event(event: Event) -> None:
            numbers = {
                **event,
                **{f"validation_{k}": v for k, v in event.get("validation", {}).items()},
            }
            metrics = {
                name: float(value)
                for name, value in numbers.items()
                if isinstance(value, int | float) and name not in ("step", "max_steps")
            }
            tracking.log_metrics(run_id, metrics, step=event["step"])
            if total := event.get("max_steps"):
                # The latest of each kind, so that lines left out in between lose no validation.
                if "validation" in event:
                    latest["validation"] = f"validation {numbers_in_words(event['validation'])}"
                else:
                    latest["loss"] = numbers_in_words({"loss": event["loss"]})
                advance(event["step"], total, "; ".join(latest.values()))
                paced(event["step"] / total)

        yield on_event
        if artifact:
            to_prefect(1.0)


def numbers_in_words(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())


@contextmanager
def of_scoring() -> Iterator[Callable[[int, int], None]]:
    """Yields `on_progress(rows_done, rows_total)`."""
    started = time.monotonic()
    with bar("score", "rows") as advance:

        def on_progress(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            advance(done, total, f"{rate:,.0f} rows/s")

        yield on_progress
