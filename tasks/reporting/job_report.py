"""The report page of a scoring job: results, rejected rows, and time spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace.configs.secrets import masked
from headrace.serving import heads
from headrace.serving.engine.manifest import Manifest
from headrace.serving.jobs.report import MAJOR_DRIFT, MIN_ROWS_FOR_DRIFT, Report
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.reporting import html

TEMPLATE = "job_report.html"
MAX_VALUES = 40
"""Values of a decision column that are shown; the others are only counted."""


def render(report: Report, manifest: Manifest, spec: JobSpec) -> str:
    """Return the page of a finished job as HTML."""
    drift_columns = heads.get(manifest.objective).DRIFT_COLUMNS
    return html.render(
        TEMPLATE,
        report=replace(report, unreadable=masked(report.unreadable)),
        paths=masked(spec.paths),
        output=masked(spec.output),
        steps=_bars(report.steps_s),
        errors=_bars(report.errors),
        decisions={
            column: _shares(report.decisions.get(column, {}), manifest.profile.get(key, {}))
            for column, key in drift_columns.items()
        },
        drifted=MAJOR_DRIFT,
        enough_for_drift=report.rows >= MIN_ROWS_FOR_DRIFT,
    )


def _bars(values: Mapping[str, float]) -> list[dict[str, object]]:
    """Return each value with its share of the largest, the largest first."""
    max_value = max([*values.values(), 1e-9])
    items = sorted(values.items(), key=lambda item: -item[1])
    return [{"name": name, "value": value, "share": value / max_value} for name, value in items]


def _shares(counts: Mapping[str, int], trained_shares: Mapping[str, float]) -> dict[str, object]:
    """Return the values' shares, beside those in training if they are known."""
    shares = {name: count / max(sum(counts.values()), 1) for name, count in counts.items()}
    names = sorted({*counts, *trained_shares}, key=lambda name: (-counts.get(name, 0), name))
    rows = [
        {
            "name": name,
            "count": counts.get(name, 0),
            "share": shares.get(name, 0.0),
            "trained": trained_shares.get(name, 0.0) if trained_shares else None,
        }
        for name in names[:MAX_VALUES]
    ]
    max_share = max([1e-9, *shares.values(), *trained_shares.values()])
    return {"rows": rows, "max_share": max_share, "n_hidden": len(names) - len(rows)}
