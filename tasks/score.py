"""Score a table with a registered model, a run's model or a folder: find it, then run the job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.job import Progress, Report, run
from tasks.models import resolve


def score(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    text: str | None = None,
    keep: Sequence[str] = (),
    variant: str | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Score `source` into the folder `output`; see serving.job.run for `options`.

    Raises UserError for a model that is not there, ServingError for input that cannot be read.
    """
    found = resolve(model)
    return run(
        found.folder,
        [source] if isinstance(source, str) else list(source),
        Path(output),
        text_column=text,
        keep=tuple(keep),
        variant=variant,
        model_version=found.version_label,
        on_progress=on_progress,
        **options,
    )
