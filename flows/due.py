"""Value of `{date}` in the output of a scoring job: the day the run is due.

For a scheduled run that is the day in the schedule's own time zone; Prefect itself counts in UTC.
Imports prefect only inside a run.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger(__name__)

DATE = "{date}"
UNNAMED = "UTC"
"""Time zone of a schedule that names none."""


def today(output: str) -> str:
    """Fill in the output of a job that a person starts now: the day of this machine's clock."""
    return _filled_in(output, datetime.now().astimezone(), "this machine's time zone")


def of_this_run(output: str) -> str:
    """Fill in the output of the flow run that calls this.

    For a run within other runs, the day is that of the outermost one.
    """
    if DATE not in output:
        return output
    from prefect import runtime
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.root_flow_run_id)
        zone, source = zone_of(run, client)
    due_time = run.expected_start_time or datetime.now().astimezone()
    return _filled_in(output, due_time.astimezone(zone), source)


def zone_of(run: FlowRun, client: Any) -> tuple[tzinfo | None, str]:
    """Return the time zone in which a run is due (None: this machine's), and whose it is.

    It is that of the schedule that created the run. For a run started by hand it is that of the
    deployment's schedules, if they agree.
    """
    if run.deployment_id is None:
        return None, "this machine's time zone"
    schedules = client.read_deployment_schedules(run.deployment_id)
    creators = [
        schedule for schedule in schedules if run.created_by and schedule.id == run.created_by.id
    ]
    zones = {str(zone): zone for zone in (clock_of(s.schedule) for s in creators or schedules)}
    if len(zones) == 1:
        ((name, zone),) = zones.items()
        return zone, f"{name} (from the {'schedule' if creators else 'deployment'})"
    reason = (
        f"the deployment's schedules use {', '.join(sorted(zones))}"
        if zones
        else "the deployment has no schedule"
    )
    return None, f"this machine's time zone ({reason})"


def clock_of(schedule: Any) -> tzinfo:
    """Return the time zone of a schedule's own clock.

    An interval that names none, but begins at a time with an offset, has that offset: Prefect says
    UTC for it.
    """
    name = schedule.timezone or UNNAMED
    anchor_date = getattr(schedule, "anchor_date", None)
    offset = anchor_date.utcoffset() if anchor_date and name == UNNAMED else None
    return timezone(offset) if offset else ZoneInfo(name)


def _filled_in(output: str, due_time: datetime, source: str) -> str:
    if DATE not in output:
        return output
    day = f"{due_time:%Y-%m-%d}"
    log.info("score: %s is %s, the date in %s", DATE, day, source)
    return output.replace(DATE, day)
