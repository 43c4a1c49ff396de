import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fabricated
import pytest

from configs.errors import ModelError
from tasks import registry, tracking
from tasks.alias_history import Entry


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registered model with the versions 1, 2 and 3, in the database that all tests share."""
    named = str(request.node.name).replace("[", "-").replace("]", "")
    fabricated.versions_in_registry(named, 3, tmp_path / "stored")
    return named


def moves(entries: list[Entry]) -> list[tuple[str, str | None, str | None]]:
    return [(one.action, one.from_version, one.to_version) for one in entries]


def test_a_promotion_moves_the_alias_and_is_entered(name: str) -> None:
    entry = registry.promote(name, "2", why="better", decision={"digest": "d2", "promote": True})
    assert registry.history(name) == [entry]
    assert (entry.alias, entry.action) == ("champion", "promote")
    assert (entry.from_version, entry.to_version) == (None, "2")
    assert (entry.why, entry.who) == ("better", tracking.user())
    assert entry.decision == {"digest": "d2", "promote": True}
    assert entry.at.endswith("+00:00")
    assert entry.line().endswith(f"champion       – → 2  promote   {tracking.user()}: better")
    found = registry.champion(name)
    assert found is not None
    assert (found.name, found.version) == (name, "2")
    assert (found.folder / "manifest.json").is_file()
    assert tracking.connect().get_model_version_by_alias(name, "champion").version == 2


def test_rollback_goes_back_one_further_each_time_then_refuses(name: str) -> None:
    for version in ("1", "2", "3"):
        registry.promote(name, version)
    assert registry.rollback(name, why="slow").to_version == "2"
    assert registry.rollback(name).to_version == "1"
    with pytest.raises(ModelError, match=f"no earlier champion.*headrace promote {name} VERSION"):
        registry.rollback(name)
    assert moves(registry.history(name))[3:] == [("rollback", "3", "2"), ("rollback", "2", "1")]


def test_rollback_does_not_return_to_what_was_rolled_back(name: str) -> None:
    registry.promote(name, "1")
    registry.promote(name, "2")
    registry.rollback(name)
    registry.promote(name, "3")
    assert registry.rollback(name).to_version == "1"


def test_rollback_passes_over_a_deleted_version(name: str) -> None:
    for version in ("1", "2", "3"):
        registry.promote(name, version)
    tracking.connect().delete_model_version(name, "2")
    assert registry.rollback(name).to_version == "1"


def test_moves_of_another_client_are_entered_once(name: str) -> None:
    registry.promote(name, "1")
    client = tracking.connect()
    client.set_registered_model_alias(name, "champion", "3")
    assert moves(registry.history(name)) == [("promote", None, "1"), ("external", "1", "3")]
    assert registry.history(name)[-1].who == "unknown"
    assert registry.rollback(name).to_version == "1"
    client.delete_registered_model_alias(name, "champion")
    assert registry.champion(name) is None
    assert registry.rollback(name, why="it was lost").to_version == "1"
    assert moves(registry.history(name))[3:] == [("external", "1", None), ("rollback", None, "1")]


KILLED = """
import os, signal, sys
from tasks import registry, tracking
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
registry.history(sys.argv[1])
for name in calls:
    setattr(client, name, dying(getattr(client, name)))
registry.promote(sys.argv[1], "2")
"""


@pytest.mark.parametrize(
    ("calls", "champion"), [(0, "1"), (1, "1"), (2, "2"), (3, "2")], ids=lambda value: str(value)
)
def test_a_mover_killed_between_two_calls_is_repaired(name: str, calls: int, champion: str) -> None:
    registry.promote(name, "1")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(calls)], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    model = tracking.connect().get_registered_model(name)
    assert ("headrace.intent" in model.tags) is (calls > 0)
    assert str(model.aliases["champion"]) == champion
    happened = [("promote", None, "1")] + [("promote", "1", "2")] * (champion == "2")
    assert moves(registry.history(name)) == happened
    assert "headrace.intent" not in tracking.connect().get_registered_model(name).tags
    assert moves(registry.history(name)) == happened
    registry.promote(name, "3")
    assert registry.rollback(name).to_version == champion


def test_movers_at_the_same_time_leave_one_story(name: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda version: _promoted(name, version), ["1", "2", "3"] * 2))
    entries = registry.history(name)
    assert len(entries) == sum(done) >= 3
    story = [None, *(one.to_version for one in entries)]
    assert story[:-1] == [one.from_version for one in entries]


def _promoted(name: str, version: str) -> bool:
    try:
        registry.promote(name, version)
    except ModelError:  # another thread had just promoted it
        return False
    return True


def test_what_is_not_there_is_answered_by_what_is(name: str) -> None:
    with pytest.raises(ModelError, match=f"no model '{name}s' .*did you mean '{name}'"):
        registry.promote(f"{name}s", "1")
    with pytest.raises(ModelError, match=r"no model 'it\\'s'|no model \"it's\""):
        registry.history("it's")
    with pytest.raises(ModelError, match="no version 4; there are: 1, 2, 3"):
        registry.promote(name, "4")
    with pytest.raises(ModelError, match="no version newest; there are: 1, 2, 3"):
        registry.promote(name, "newest")
    registry.promote(name, "1")
    with pytest.raises(ModelError, match="version 1 is the champion already"):
        registry.promote(name, "1")
    client = tracking.connect()
    client.create_model_version(name, "/somewhere")
    with pytest.raises(ModelError, match="version 4 was not registered by headrace"):
        registry.promote(name, "4")
    assert moves(registry.history(name)) == [("promote", None, "1")]


def test_no_champion_yet(name: str) -> None:
    assert registry.champion(name) is None
    assert registry.champion("nothing-of-this-name") is None
    with pytest.raises(ModelError, match="no earlier champion"):
        registry.rollback(name)


def test_a_champion_whose_files_changed_is_not_used(name: str, tmp_path: Path) -> None:
    registry.promote(name, "1")
    graph = tmp_path / "stored" / "artifacts" / "model" / "fp32" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"{name} version 1: .* differs from what was registered"):
        registry.champion(name)
    (tmp_path / "stored").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"{name} version 1: its files are gone"):
        registry.champion(name)


def test_a_candidate_never_meets_itself(name: str) -> None:
    made = fabricated.stages(name)
    client = tracking.connect()
    client.set_model_version_tag(name, "2", registry.EXPORT, made["exported"].digest)
    assert registry.rival(name, made["exported"]) is None
    registry.promote(name, "1")
    registry.promote(name, "2")
    rival = registry.rival(name, made["exported"])
    assert rival is not None
    assert rival.version == "1"
    registry.promote(name, "3")
    rival = registry.rival(name, made["exported"])
    assert rival is not None
    assert rival.version == "3"
