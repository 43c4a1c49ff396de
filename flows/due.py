"""The day that `{date}` stands for in the output of a scoring job.

A run that a schedule started is due on the day that the schedule's own clock shows; Prefect itself
counts in UTC. Imports prefect only inside a run.
"""

from __future__ import annotations

import logging
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger(__name__)

DATE = "{date}"
UNNAMED = "UTC"
"""The time zone of a schedule that names none."""


def today(output: str) -> str:
    """The output of a job that a person starts here and now: the day of this machine's clock."""
    return _filled_in(output, datetime.now().astimezone(), "this machine's time zone")


def of_this_run(output: str) -> str:
    """The output of the flow run that calls this.

    Of a run within runs, the outermost one is what was due.
    """
    if DATE not in output:
        return output
    from prefect import runtime
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(runtime.flow_run.root_flow_run_id)
        zone, source = zone_of(run, client)
    due = run.expected_start_time or datetime.now().astimezone()
    return _filled_in(output, due.astimezone(zone), source)


def zone_of(run: FlowRun, client: Any) -> tuple[tzinfo | None, str]:
    """The time zone in which a run is due, and whose it is; None: this machine's.

    It is that of the schedule that made the run; for one started by hand, that of the deployment's
    schedules where they agree.
    """
    if run.deployment_id is None:
        return None, "this machine's time zone"
    schedules = client.read_deployment_schedules(run.deployment_id)
    mine = [one for one in schedules if run.created_by and one.id == run.created_by.id]
    zones = {one.schedule.timezone or UNNAMED for one in mine or schedules}
    if len(zones) == 1:
        (name,) = zones
        return ZoneInfo(name), f"{name}, as the {'schedule' if mine else 'deployment'} has it"
    why = f"the deployment has {', '.join(sorted(zones))}" if zones else "no schedule has another"
    return None, f"this machine's time zone: {why}"


def _filled_in(output: str, due: datetime, source: str) -> str:
    if DATE not in output:
        return output
    day = f"{due:%Y-%m-%d}"
    log.info("score: %s is %s, the day in %s", DATE, day, source)
    return output.replace(DATE, day)
