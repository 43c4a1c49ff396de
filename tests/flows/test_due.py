"""Which day `{date}` is: schedules of a real Prefect server, in time zones far from UTC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from headrace.flows import due
from tests.flows.test_prefect import wait_for
from tests.serving.job_runs import table
from tests.serving.tiny_model import make_model

HOURLY = "38 * * * *"


@pytest.fixture
def client(prefect_api: str) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def hourly(zone: str | None) -> Any:
    from prefect.client.schemas.schedules import CronSchedule

    return CronSchedule(cron=HOURLY, timezone=zone)


def deploy(client: Any, name: str, *schedules: Any) -> Any:
    """A deployment with these schedules."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    flow_id = client.create_flow_from_name(name)
    active = [DeploymentScheduleCreate(schedule=schedule, active=True) for schedule in schedules]
    return client.create_deployment(flow_id=flow_id, name=name, schedules=active)


def runs_of(client: Any, deployment: Any) -> list[Any]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    of_it = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return list(client.read_flow_runs(deployment_filter=of_it))


def test_a_run_is_due_in_the_zone_of_the_schedule_that_made_it(client: Any) -> None:
    """Two schedules of one deployment, 26 hours apart: some day of theirs is never UTC's."""
    deployment = deploy(client, "far-apart", *map(hourly, ("Pacific/Kiritimati", "Etc/GMT+12")))
    try:
        planned = wait_for(lambda: len(runs_of(client, deployment)) > 3, 60)
        assert planned
        days = set()
        for run in runs_of(client, deployment):
            zone, source = due.zone_of(run, client)
            assert source == f"{zone} (from the schedule)"
            local = run.expected_start_time.astimezone(zone)
            days.add((str(zone), local.date() - run.expected_start_time.date()))
        assert {zone for zone, _ in days} == {"Pacific/Kiritimati", "Etc/GMT+12"}
        assert any(difference for _, difference in days)
        by_hand = client.create_flow_run_from_deployment(deployment)
        assert due.zone_of(by_hand, client) == (
            None,
            "this machine's time zone "
            "(the deployment's schedules use Etc/GMT+12, Pacific/Kiritimati)",
        )
    finally:
        client.delete_deployment(deployment)


def daily(kind: str, zone: str | None, first: date = date(2026, 1, 1)) -> Any:
    """A schedule of each kind, for half past midnight by the clock of the time zone.

    `first`: anchor of an interval, which Prefect moves by an hour when the clocks have changed.
    """
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    if kind == "cron":
        return CronSchedule(cron="30 0 * * *", timezone=zone)
    if kind == "rrule":
        return RRuleSchedule(rrule="DTSTART:20260101T003000\nRRULE:FREQ=DAILY", timezone=zone)
    start = datetime.fromisoformat(f"{first}T00:30:00+13:00")
    start = start.replace(tzinfo=ZoneInfo(zone)) if zone else start
    return IntervalSchedule(interval=timedelta(days=1), anchor_date=start, timezone=zone)


@pytest.mark.parametrize(
    ("kind", "zone"),
    [
        ("cron", "Pacific/Auckland"),
        ("interval", "Pacific/Auckland"),
        ("rrule", "Pacific/Auckland"),
        ("interval", None),
    ],
)
def test_each_kind_of_schedule_has_a_clock(client: Any, kind: str, zone: str | None) -> None:
    """At half past midnight in New Zealand, UTC has the day before."""
    deployment = deploy(client, f"{kind}-with-zone-{bool(zone)}", daily(kind, zone))
    try:
        assert wait_for(lambda: len(runs_of(client, deployment)) > 1, 60)
        for run in runs_of(client, deployment):
            found, source = due.zone_of(run, client)
            assert source == f"{zone or 'UTC+13:00'} (from the schedule)"
            local = run.expected_start_time.astimezone(found)
            assert (local.hour, local.minute) == (0, 30)
            assert local.date() - run.expected_start_time.date() == timedelta(days=1)
    finally:
        client.delete_deployment(deployment)


@pytest.mark.parametrize("kind", ["cron", "interval", "rrule"])
@pytest.mark.parametrize(
    ("zone", "first", "hours_utc"),
    [
        # Clocks go back an hour on 4 April 2027, and forward on 26 September.
        ("Pacific/Auckland", date(2027, 4, 3), [11, 11, 12]),
        ("Pacific/Auckland", date(2027, 9, 25), [12, 12, 11]),
        ("Europe/Berlin", date(2027, 3, 27), [23, 23, 22]),
        ("Europe/Berlin", date(2027, 10, 30), [22, 22, 23]),
    ],
)
def test_days_on_which_the_clocks_change(
    kind: str, zone: str, first: date, hours_utc: list[int]
) -> None:
    """The expected times are those that Prefect's server plans."""
    import asyncio

    from prefect.server.schemas import schedules

    here = daily(kind, zone, first - timedelta(days=7))
    planned = getattr(schedules, type(here).__name__).model_validate_json(here.model_dump_json())
    midnight = datetime(first.year, first.month, first.day, tzinfo=ZoneInfo(zone))
    times = asyncio.run(planned.get_dates(n=3, start=midnight))
    assert [time.astimezone(UTC).hour for time in times] == hours_utc
    days = [time.astimezone(UTC).astimezone(due.clock_of(here)).date() for time in times]
    assert days == [first + timedelta(days=i) for i in range(3)]


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        (["Asia/Tokyo"], (ZoneInfo("Asia/Tokyo"), "Asia/Tokyo (from the deployment)")),
        (["Asia/Tokyo"] * 2, (ZoneInfo("Asia/Tokyo"), "Asia/Tokyo (from the deployment)")),
        ([None], (ZoneInfo("UTC"), "UTC (from the deployment)")),
        ([], (None, "this machine's time zone (the deployment has no schedule)")),
    ],
)
def test_a_run_by_hand_is_due_in_the_deployments_zone(
    client: Any, zones: list[str | None], expected: Any
) -> None:
    deployment = deploy(client, "by-hand", *map(hourly, zones))
    try:
        run = client.create_flow_run_from_deployment(deployment)
        assert due.zone_of(run, client) == expected
    finally:
        client.delete_deployment(deployment)


def test_a_flow_that_is_called_is_due_by_this_machines_clock(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timezone: Any
) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    from headrace.flows.scoring import scoring

    model, source = make_model(tmp_path / "model"), table(tmp_path / "t.csv", 30)

    @flow(persist_result=False)
    def outer() -> Any:
        return scoring(str(model), str(source), str(tmp_path / "by {date}"), return_state=True)

    for zone, hours in (("Pacific/Kiritimati", 14), ("Etc/GMT+12", -12)):
        timezone(zone)
        days = {local_day(hours)}
        with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
            outer()
        days.add(local_day(hours))
        assert any((tmp_path / f"by {day}" / "_SUCCESS").exists() for day in days)


@pytest.fixture
def timezone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    import time

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def local_day(hours: int) -> str:
    return f"{datetime.now(UTC) + timedelta(hours=hours):%Y-%m-%d}"


@pytest.mark.parametrize("in_prefect", [False, True])
def test_the_command_line_takes_this_machines_day(
    in_prefect: bool,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headrace: Callable[..., tuple[int, Any, str]],
    timezone: Callable[[str], None],
) -> None:
    if in_prefect:
        for name, value in request.getfixturevalue("prefect_server").items():
            monkeypatch.setenv(name, value)
    else:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
    model, source = make_model(tmp_path / "model"), table(tmp_path / "t.csv", 30)
    for zone, hours in (("Pacific/Kiritimati", 14), ("Etc/GMT+12", -12)):
        timezone(zone)
        days = {local_day(hours)}
        code, value, told = headrace("score", model, source, tmp_path / "by {date}")
        days.add(local_day(hours))
        assert (code, value["rows"]) == (0, 30)
        assert value["page"] in {str(tmp_path / f"by {day}" / "_report.html") for day in days}
        assert "the date in this machine's time zone" in told


def test_an_output_without_a_date_asks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert due.of_this_run("predictions") == due.today("predictions") == "predictions"
    assert caplog.messages == []
