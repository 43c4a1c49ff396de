"""Progress of long runs: a bar on a terminal, plain lines elsewhere, and an artifact in Prefect."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from headrace.tasks.scoring.score import OnProgress
    from headrace.tasks.training.launcher import OnEvent

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 5.0

P = ParamSpec("P")


class Throttle(Generic[P]):
    """Callable that passes on at most one call in `every_s` seconds."""

    def __init__(self, call: Callable[P, None], every_s: float) -> None:
        self._call, self._every_s, self._last = call, every_s, float("-inf")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._call(*args, **kwargs)


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield `advance(done, total, note)`, which updates a bar or logs lines; quiet: neither."""
    if not log.isEnabledFor(logging.WARNING):
        yield lambda done, total, note: None
        return
    if not sys.stderr.isatty():
        start: tuple[int, float] | None = None

        def say(done: int, total: int, note: str) -> None:
            nonlocal start
            now = time.monotonic()
            start = start or (done, now)  # loading, or an earlier run, came before
            n_done, seconds = done - start[0], now - start[1]
            time_left = timedelta(seconds=round(seconds * (total - done) / max(n_done, 1)))
            ending = f", {time_left} left" if n_done and done < total else ""
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(title, total=None, note="")
        yield lambda done, total, note: display.update(task, completed=done, total=total, note=note)


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
            artifact_id = create_progress_artifact(progress=percent, description=self._description)
            self._id = artifact_id if isinstance(artifact_id, UUID) else UUID(str(artifact_id))


@contextmanager
def of_training(run_id: str | None = None) -> Iterator[OnEvent]:
    """Yield a callback for events of `train`, which reports to the terminal, MLflow and Prefect.

    `run_id`: the MLflow run that gets the numbers, if any does.
    """
    from headrace.tasks.registry import tracking

    artifact = PrefectArtifact("Training")
    notes: dict[str, str] = {}
    with bar("train", "steps") as advance:

        def on_event(event: Mapping[str, Any]) -> None:
            numbers = {
                **event,
                **{f"validation_{k}": v for k, v in event.get("validation", {}).items()},
            }
            metrics = {
                name: float(value)
                for name, value in numbers.items()
                if isinstance(value, int | float) and name not in ("step", "max_steps")
            }
            if run_id is not None:
                tracking.log_metrics(run_id, metrics, step=event["step"])
            if total := event.get("max_steps"):
                # Keep the latest of each kind: a line that is throttled must not lose a validation.
                if "validation" in event:
                    notes["validation"] = f"validation {numbers_in_words(event['validation'])}"
                else:
                    notes["loss"] = numbers_in_words({"loss": event["loss"]})
                advance(event["step"], total, "; ".join(notes.values()))
                artifact.paced(event["step"] / total)

        yield on_event
        if artifact.begun:
            artifact.tell(1.0)


def numbers_in_words(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def scoring_note(fields: Mapping[str, Any], seconds: float) -> str:
    """Format speed, padding, rejected rows, and the share of the time that each step takes."""
    notes = [
        f"{fields['rows_now'] / seconds:,.0f} rows/s",
        f"{fields['tokens'] / seconds:,.0f} tokens/s",
    ]
    if fields["padded_tokens"]:
        notes.append(f"{1 - fields['tokens'] / fields['padded_tokens']:.0%} padding")
    if fields["errors"]:
        notes.append(f"{fields['errors']:,} rejected")
    total = sum(fields["steps_s"].values())
    steps = sorted(fields["steps_s"].items(), key=lambda item: -item[1])
    shares = [f"{name} {step_s / total:.0%}" for name, step_s in steps if step_s > total / 100]
    return "; ".join(", ".join(part) for part in (notes, shares) if part)


@contextmanager
def of_scoring(*, to_prefect: bool = False) -> Iterator[OnProgress]:
    """Yield a callback that shows a job's progress in the terminal and in Prefect.

    It takes the fields of `Progress` (serving/jobs/report.py).
    """
    artifact = PrefectArtifact("Scoring") if to_prefect else None
    started = time.monotonic()
    with bar("score", "rows") as advance:

        def on_progress(fields: Mapping[str, Any]) -> None:
            advance(
                fields["rows"], fields["n_rows"], scoring_note(fields, time.monotonic() - started)
            )
            if artifact:
                artifact.paced(fields["rows"] / max(fields["n_rows"], 1))

        yield on_progress
        if artifact:
            artifact.tell(1.0)
