"""Versions and the moves of their aliases: promotion, rollback, and those of others."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import ModelError
from headrace.tasks.registry import model_store, tracking, versions
from headrace.tasks.registry.alias_history import Entry
from headrace.tasks.registry.unreadable import Unreadable
from tests import fabricated


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registered model with the versions 1, 2 and 3, in the database that all tests share."""
    named = str(request.node.name).replace("[", "-").replace("]", "")
    fabricated.versions_in_registry(named, 3, tmp_path / "stored")
    return named


def moves(entries: list[Entry]) -> list[tuple[str, str | None, str | None]]:
    return [(one.action, one.from_version, one.to_version) for one in entries]


def test_a_promotion_moves_the_alias_and_is_entered(name: str) -> None:
    entry = versions.promote(name, "2", reason="better")
    assert versions.history(name) == [entry]
    assert (entry.alias, entry.action) == ("champion", "promote")
    assert (entry.from_version, entry.to_version) == (None, "2")
    assert (entry.why, entry.who) == ("better", tracking.user())
    assert entry.decision is None
    assert entry.at.endswith("+00:00")
    assert entry.line().endswith(f"champion       – → 2  promote   {tracking.user()}: better")
    found = fabricated.champion(name)
    assert found is not None
    assert (found.name, found.version) == (name, "2")
    assert (found.folder / "manifest.json").is_file()
    assert tracking.connect().get_model_version_by_alias(name, "champion").version == 2


def test_a_reason_is_kept_without_the_secrets_in_it(name: str) -> None:
    entry = versions.promote(name, "1", reason="as https://me:hunter2@host/?sig=abc123 says")
    assert entry.why == "as https://me:***@host/?sig=*** says"
    kept = " ".join(tracking.connect().get_registered_model(name).tags.values())
    assert entry.why in kept
    assert "hunter2" not in kept
    assert "abc123" not in kept


def test_rollback_goes_back_one_further_each_time_then_refuses(name: str) -> None:
    for version in ("1", "2", "3"):
        versions.promote(name, version)
    assert versions.rollback(name, reason="slow").to_version == "2"
    assert versions.rollback(name).to_version == "1"
    with pytest.raises(ModelError, match=f"no earlier champion.*headrace promote {name} VERSION"):
        versions.rollback(name)
    assert moves(versions.history(name))[3:] == [("rollback", "3", "2"), ("rollback", "2", "1")]


def test_rollback_does_not_return_to_what_was_rolled_back(name: str) -> None:
    versions.promote(name, "1")
    versions.promote(name, "2")
    versions.rollback(name)
    versions.promote(name, "3")
    assert versions.rollback(name).to_version == "1"


def test_rollback_passes_over_a_deleted_version(name: str) -> None:
    for version in ("1", "2", "3"):
        versions.promote(name, version)
    tracking.connect().delete_model_version(name, "2")
    assert versions.rollback(name).to_version == "1"


def test_moves_of_another_client_are_entered_once(name: str) -> None:
    versions.promote(name, "1")
    client = tracking.connect()
    client.set_registered_model_alias(name, "champion", "3")
    assert moves(versions.history(name)) == [("promote", None, "1"), ("external", "1", "3")]
    assert versions.history(name)[-1].who == "unknown"
    assert versions.rollback(name).to_version == "1"
    client.delete_registered_model_alias(name, "champion")
    assert fabricated.champion(name) is None
    assert versions.rollback(name, reason="it was lost").to_version == "1"
    assert moves(versions.history(name))[3:] == [("external", "1", None), ("rollback", None, "1")]


KILLED = """
import os, signal, sys
from headrace.tasks.registry import tracking, versions
client = tracking.connect()
calls = ["set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_tag"]
left = int(sys.argv[2])
def dying(call):
    def wrapper(*args):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*args)
    return wrapper
versions.history(sys.argv[1])
for name in calls:
    setattr(client, name, dying(getattr(client, name)))
versions.promote(sys.argv[1], "2")
"""


@pytest.mark.parametrize(
    ("calls", "champion"), [(0, "1"), (1, "1"), (2, "2"), (3, "2")], ids=lambda value: str(value)
)
def test_a_mover_killed_between_two_calls_is_repaired(name: str, calls: int, champion: str) -> None:
    versions.promote(name, "1")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(calls)], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    model = tracking.connect().get_registered_model(name)
    assert ("headrace.intent" in model.tags) is (calls > 0)
    assert str(model.aliases["champion"]) == champion
    happened = [("promote", None, "1")] + [("promote", "1", "2")] * (champion == "2")
    assert moves(versions.history(name)) == happened
    assert "headrace.intent" not in tracking.connect().get_registered_model(name).tags
    assert moves(versions.history(name)) == happened
    versions.promote(name, "3")
    assert versions.rollback(name).to_version == champion


def test_movers_at_the_same_time_leave_one_story(name: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda version: _promoted(name, version), ["1", "2", "3"] * 2))
    entries = versions.history(name)
    assert len(entries) == sum(done) >= 3
    story = [None, *(one.to_version for one in entries)]
    assert story[:-1] == [one.from_version for one in entries]


def _promoted(name: str, version: str) -> bool:
    try:
        versions.promote(name, version)
    except ModelError:  # another thread had just promoted it
        return False
    return True


def test_what_is_not_there_is_answered_by_what_is(name: str) -> None:
    with pytest.raises(ModelError, match=f"model '{name}s' not found .*did you mean '{name}'"):
        versions.promote(f"{name}s", "1")
    with pytest.raises(ModelError, match=r"model 'it\\'s' not found|model \"it's\" not found"):
        versions.history("it's")
    with pytest.raises(ModelError, match="no version 4; existing versions: 1, 2, 3"):
        versions.promote(name, "4")
    with pytest.raises(ModelError, match="no version newest; existing versions: 1, 2, 3"):
        versions.promote(name, "newest")
    versions.promote(name, "1")
    with pytest.raises(ModelError, match="version 1 is already the champion"):
        versions.promote(name, "1")
    client = tracking.connect()
    client.create_model_version(name, "/somewhere")
    with pytest.raises(ModelError, match="version 4 was not registered by headrace"):
        versions.promote(name, "4")
    assert moves(versions.history(name)) == [("promote", None, "1")]


def test_no_champion_yet(name: str) -> None:
    assert fabricated.champion(name) is None
    assert fabricated.champion("nothing-of-this-name") is None
    with pytest.raises(ModelError, match="no earlier champion"):
        versions.rollback(name)


def test_a_champion_whose_files_changed_is_not_used(name: str, tmp_path: Path) -> None:
    versions.promote(name, "1")
    graph = tmp_path / "stored" / "artifacts" / "model" / "fp32" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"{name} version 1: .* differs from the registered files"):
        fabricated.champion(name)
    (tmp_path / "stored").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"{name} version 1: its files are missing"):
        fabricated.champion(name)


def test_a_candidate_never_meets_itself(name: str) -> None:
    """Itself is what was exported, not what came of the same recipe at another time."""
    made = fabricated.stages(name)["exported"]
    client = tracking.connect()
    client.set_model_version_tag(name, "2", versions.EXPORT_ID, made.id)
    client.set_model_version_tag(name, "3", versions.EXPORT_DIGEST, made.digest)
    client.set_model_version_tag(name, "3", versions.EXPORT_ID, "an earlier making")
    assert versions.champion_to_beat(name, made) is None
    for version, met in (("1", "1"), ("2", "1"), ("3", "3")):
        versions.promote(name, version)
        champion = versions.champion_to_beat(name, made)
        assert champion is not None
        assert champion.version == met


def by_hand(name: str) -> None:
    versions.promote(name, "2")


def by_rollback(name: str) -> None:
    versions.promote(name, "2")
    versions.promote(name, "3")
    versions.rollback(name)


def by_another_client(name: str) -> None:
    tracking.connect().set_registered_model_alias(name, "champion", "2")


def by_a_decision(name: str) -> None:
    assert versions.carry_out(name, "2", decision("of 2", over="1"), reason="better")


def by_deletion(name: str) -> None:
    tracking.connect().delete_registered_model_alias(name, "champion")


def decision(digest: str, *, over: str | None, promote: bool = True) -> dict[str, Any]:
    return {"digest": digest, "promote": promote, "metric": "accuracy", "compared_with": over}


@pytest.mark.parametrize("promote", [True, False], ids=["promoted", "refused"])
@pytest.mark.parametrize(
    ("change", "stands"),
    [
        (by_hand, "2"),
        (by_rollback, "2"),
        (by_another_client, "2"),
        (by_a_decision, "2"),
        (by_deletion, None),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_a_decision_is_not_carried_out_over_a_champion_it_never_met(
    name: str, change: Callable[[str], None], stands: str | None, promote: bool
) -> None:
    versions.promote(name, "1")
    met = decision("of 3", over="1", promote=promote)
    change(name)
    before = versions.history(name)
    with pytest.raises(versions.ChampionChanged) as changed:
        versions.carry_out(name, "3", met, reason="over 1")
    assert changed.value.champion == stands
    assert versions.history(name) == before

    assert versions.carry_out(name, "3", {**met, "digest": "again", "compared_with": stands}, "x")
    entry = versions.history(name)[-1]
    assert (entry.alias, entry.to_version) == ("champion" if promote else "challenger", "3")
    assert (entry.decision or {})["compared_with"] == stands
    # Once: also when a decision is asked for again after somebody undid it.
    if promote and stands:
        versions.rollback(name)
    assert not versions.carry_out(name, "3", {**met, "digest": "again"}, "x")


def test_decisions_carried_out_at_the_same_time_leave_one_champion(name: str) -> None:
    versions.promote(name, "1")

    def carried_out(version: str) -> bool:
        try:
            return versions.carry_out(name, version, decision(version, over="1"), reason="over 1")
        except versions.ChampionChanged:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(carried_out, ["2", "3"])) == [False, True]
    assert len(versions.history(name)) == 2


# --- damaged and deleted versions -----------------------------------------------------------------


def lost(name: str, version: str) -> None:
    """The version's files are gone."""
    folder = Path(tracking.connect().get_model_version(name, version).source)
    shutil.rmtree(folder)


def changed(name: str, version: str) -> None:
    folder = Path(tracking.connect().get_model_version(name, version).source)
    (folder / "artifacts" / "model" / "golden.json").write_text("{}")


def not_ours(name: str, version: str) -> None:
    tracking.connect().delete_model_version_tag(name, version, versions.CONTENT)


def unreadable(name: str, version: str) -> None:
    """Registered as it is, and no model."""
    folder = Path(tracking.connect().get_model_version(name, version).source)
    model = folder / "artifacts" / "model"
    (model / "manifest.json").write_text('{"format": 2}')
    tracking.connect().set_model_version_tag(
        name, version, versions.CONTENT, model_store.content_id(model)
    )


@pytest.fixture
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `name`, each version with files of its own."""
    named = str(request.node.name).replace("[", "-").replace("]", "")
    fabricated.versions_in_registry(named, 3, tmp_path / "stored", apart=True)
    return named


DAMAGES = pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lost, "its files are missing"),
        (changed, "differs from the registered files"),
        (not_ours, "was not registered by headrace"),
        (unreadable, "manifest.json cannot be read"),
    ],
)


@DAMAGES
def test_no_candidate_can_be_compared_with_a_damaged_champion(
    apart: str, damage: Callable[[str, str], None], said: str
) -> None:
    versions.promote(apart, "2")
    damage(apart, "2")
    champion = versions.champion_to_beat(apart)
    assert isinstance(champion, Unreadable)
    assert (champion.name, champion.version) == (apart, "2")
    assert said in champion.problem


@DAMAGES
def test_rollback_passes_over_a_damaged_version_and_says_so(
    apart: str, damage: Callable[[str, str], None], said: str
) -> None:
    for version in ("1", "2", "3"):
        versions.promote(apart, version)
    damage(apart, "2")
    entry = versions.rollback(apart, reason="too slow")
    assert (entry.from_version, entry.to_version) == ("3", "1")
    assert entry.why.startswith("too slow; skipped version 2: ")
    assert said in entry.why
    assert versions.history(apart)[-1] == entry


@DAMAGES
def test_a_damaged_version_is_not_promoted(
    apart: str, damage: Callable[[str, str], None], said: str
) -> None:
    versions.promote(apart, "1")
    damage(apart, "2")
    with pytest.raises(ModelError, match=said):
        versions.promote(apart, "2")
    assert moves(versions.history(apart)) == [("promote", None, "1")]


def test_a_rollback_that_would_move_nothing_is_no_move(name: str) -> None:
    """1, 2 and 1 again by hand; without 2 there is none but the champion itself."""
    for version in ("1", "2", "1"):
        versions.promote(name, version)
    tracking.connect().delete_model_version(name, "2")
    before = versions.history(name)
    with pytest.raises(ModelError, match=r"no earlier champion.*skipped version 2: deleted"):
        versions.rollback(name)
    assert versions.history(name) == before


def test_rollback_from_a_damaged_champion_goes_to_the_one_before(apart: str) -> None:
    versions.promote(apart, "1")
    versions.promote(apart, "2")
    lost(apart, "2")
    assert versions.rollback(apart).to_version == "1"
    assert versions.history(apart)[-1].why == "by hand"
