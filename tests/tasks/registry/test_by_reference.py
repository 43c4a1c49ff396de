"""Commands on a registered model by whatever a line of output calls it, and the list of all."""

import pytest

from headrace.configs.errors import ModelError
from headrace.tasks.registry import by_reference, listing
from tests import fabricated


@pytest.fixture(scope="module")
def run_id() -> str:
    """The run of both versions of `named`; the second is the champion."""
    first = fabricated.registered("named", fabricated.stages("named"))
    second = fabricated.registered("named", fabricated.stages("named-newer", over="1"))
    assert (first.version, second.version) == ("1", "2")
    return second.run_id


def test_the_list_of_what_there_is(run_id: str) -> None:
    newer, older = listing.models("named")
    assert (newer.model, newer.aliases, older.model, older.aliases) == (
        *("named/2", ["champion"]),
        *("named/1", []),
    )
    assert (older.metric, older.value, older.run_id) == ("accuracy", 0.9, run_id)
    assert [one for one in listing.models() if one.model.startswith("named/")] == [newer, older]
    assert newer.line().startswith("named/2 ")
    assert "accuracy 0.9000" in newer.line()
    assert newer.line().endswith(" champion")
    with pytest.raises(ModelError, match=r"model 'namd' not found .*did you mean 'named'"):
        listing.models("namd")


def test_a_version_is_promoted_and_rolled_back_by_its_names(run_id: str) -> None:
    for reference in ("named/1", "models:/named/1"):
        assert by_reference.promote(reference).to_version == "1"
        assert by_reference.promote("named", "2").to_version == "2"
    assert by_reference.promote("named/1", "1").to_version == "1"
    assert by_reference.promote(run_id).to_version == "2"

    with pytest.raises(ModelError, match="named/1 is not the champion, version 2 is"):
        by_reference.rollback("named/1")
    assert by_reference.rollback("named@champion").to_version == "1"
    with pytest.raises(ModelError, match=r"which version of named\? .headrace models named. lists"):
        by_reference.promote("named")
    with pytest.raises(ModelError, match="named/1 is version 1, not 2; give only one"):
        by_reference.promote("named/1", "2")


def test_the_history_of_a_version_is_its_own_moves(run_id: str) -> None:
    whole = by_reference.history("named")
    assert by_reference.history("named/1")[0] == whole[0]
    assert {entry.to_version for entry in whole} == {"1", "2"}
    third = fabricated.registered(
        "named", fabricated.stages("named-third", promote=False, over="1")
    )
    (entry,) = by_reference.history(f"named/{third.version}")
    assert (entry.alias, entry.to_version) == ("challenger", third.version)
