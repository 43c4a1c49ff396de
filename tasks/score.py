"""Score a table with a registered model, a run's model or a folder: find it, then run the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import survive
from tasks.models import resolve

if TYPE_CHECKING:
    from serving.report import Report


def score(
    model: str,
    source: str | Sequence[str],
    output: str | Path,
    *,
    text: str | None = None,
    keep: Sequence[str] = (),
    variant: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Report:
    """Score `source` into the folder `output`; see serving.job.run for `options`.

    Raises UserError for a model that is not there, ServingError for input that cannot be read.
    """
    found = resolve(model)
    told = survive.run(
        {
            "model": str(found.folder),
            "paths": [source] if isinstance(source, str) else list(source),
            "output": str(output),
            "text_column": text,
            "keep": list(keep),
            "variant": variant,
            "model_version": found.version_label,
            **options,
        },
        on_progress,
    )
    from serving.report import Report  # with onnxruntime behind it: not before it is needed

    return Report(**told)
