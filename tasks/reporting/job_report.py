"""The report page of a scoring job: results, rejected rows, and time spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headrace.configs.secrets import masked
from headrace.serving import heads
from headrace.serving.engine.manifest import Manifest
from headrace.serving.jobs.report import DRIFTED, ENOUGH_FOR_DRIFT, Report
from headrace.tasks.reporting import html

TEMPLATE = "job_report.html"
MAX_VALUES = 40
"""Values of a decision column that are shown; the others are only counted."""


def render(report: Report, described: Manifest, given: Mapping[str, Any]) -> str:
    """Return the page as HTML. `given`: the arguments of the job."""
    watched = heads.get(described.objective).DRIFT_COLUMNS
    return html.render(
        TEMPLATE,
        report=replace(report, unreadable=masked(report.unreadable)),
        given=masked(given),
        steps=_bars(report.steps_s),
        errors=_bars(report.errors),
        decisions={
            column: _shares(report.decisions.get(column, {}), described.profile.get(key, {}))
            for column, key in watched.items()
        },
        drifted=DRIFTED,
        enough_for_drift=report.rows >= ENOUGH_FOR_DRIFT,
    )


def _bars(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each value with its share of the largest, the largest first."""
    most = max([*values.values(), 1e-9])
    ordered = sorted(values.items(), key=lambda one: -one[1])
    return [{"name": name, "value": value, "share": value / most} for name, value in ordered]


def _shares(counts: Mapping[str, int], trained: Mapping[str, float]) -> dict[str, Any]:
    """Return the values' shares, beside those in training if they are known."""
    shares = {name: count / max(sum(counts.values()), 1) for name, count in counts.items()}
    names = sorted({*counts, *trained}, key=lambda name: (-counts.get(name, 0), name))
    rows = [
        {
            "name": name,
            "count": counts.get(name, 0),
            "share": shares.get(name, 0.0),
            "trained": trained.get(name, 0.0) if trained else None,
        }
        for name in names[:MAX_VALUES]
    ]
    most = max([1e-9, *shares.values(), *trained.values()])
    return {"rows": rows, "most": most, "others": len(names) - len(rows)}
