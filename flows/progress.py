"""Progress of long runs: a bar on a terminal, plain lines elsewhere, and an artifact in Prefect."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 5.0

Event = dict[str, Any]


class Throttle:
    """Callable that passes on at most one call in `every_s` seconds."""

    def __init__(self, call: Callable[..., None], every_s: float) -> None:
        self._call, self._every_s, self._last = call, every_s, float("-inf")

    def __call__(self, *args: Any) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._call(*args)


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield `advance(done, total, note)`, which updates a bar or logs lines."""
    if not sys.stderr.isatty():
        first: tuple[int, float] | None = None

        def say(done: int, total: int, note: str) -> None:
            nonlocal first
            now = time.monotonic()
            first = first or (done, now)  # loading, or an earlier run, came before
            made, seconds = done - first[0], now - first[1]
            left = timedelta(seconds=round(seconds * (total - done) / max(made, 1)))
            ending = f", {left} left" if made and done < total else ""
            log.info("%s: %s of %s %s, %s%s", title, f"{done:,}", f"{total:,}", unit, note, ending)

        yield Throttle(say, LINE_EVERY_S)
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


class PrefectArtifact:
    """Progress artifact of the current Prefect run."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._id: UUID | None = None
        self.paced = Throttle(self.tell, ARTIFACT_EVERY_S)

    @property
    def begun(self) -> bool:
        return self._id is not None

    def tell(self, share: float) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        percent = round(100 * share, 1)
        if self._id:
            update_progress_artifact(artifact_id=self._id, progress=percent)
        else:
            made = create_progress_artifact(progress=percent, description=self._description)
            self._id = made if isinstance(made, UUID) else UUID(str(made))


@contextmanager
def of_training(run_id: str) -> Iterator[Callable[[Event], None]]:
    """Yield a callback for events of `train`, which reports to the terminal, MLflow and Prefect."""
    from headrace.tasks.registry import tracking

    artifact = PrefectArtifact("Training")
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
                # Keep the latest of each kind: a line that is throttled must not lose a validation.
                if "validation" in event:
                    latest["validation"] = f"validation {numbers_in_words(event['validation'])}"
                else:
                    latest["loss"] = numbers_in_words({"loss": event["loss"]})
                advance(event["step"], total, "; ".join(latest.values()))
                artifact.paced(event["step"] / total)

        yield on_event
        if artifact.begun:
            artifact.tell(1.0)


def numbers_in_words(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def scoring_note(now: dict[str, Any], seconds: float) -> str:
    """Format speed, padding, rejected rows, and the share of the time that each step takes."""
    notes = [
        f"{now['rows_now'] / seconds:,.0f} rows/s",
        f"{now['tokens'] / seconds:,.0f} tokens/s",
    ]
    if now["padded_tokens"]:
        notes.append(f"{1 - now['tokens'] / now['padded_tokens']:.0%} padding")
    if now["errors"]:
        notes.append(f"{now['errors']:,} rejected")
    total = sum(now["steps_s"].values())
    steps = sorted(now["steps_s"].items(), key=lambda one: -one[1])
    shares = [f"{name} {took / total:.0%}" for name, took in steps if took > total / 100]
    return "; ".join(", ".join(part) for part in (notes, shares) if part)


@contextmanager
def of_scoring(*, to_prefect: bool = False) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a callback that shows a job's progress in the terminal and in Prefect.

    It takes the fields of `Progress` (serving/jobs/report.py).
    """
    artifact = PrefectArtifact("Scoring") if to_prefect else None
    started = time.monotonic()
    with bar("score", "rows") as advance:

        def on_progress(now: dict[str, Any]) -> None:
            advance(now["rows"], now["n_rows"], scoring_note(now, time.monotonic() - started))
            if artifact:
                artifact.paced(now["rows"] / max(now["n_rows"], 1))

        yield on_progress
        if artifact:
            artifact.tell(1.0)
