"""The whole pipeline through the command line, on a real Prefect server and a real registry."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.toy import sentences, write_csv

Call = Callable[..., tuple[int, Any, str]]

pytestmark = pytest.mark.usefixtures("home", "prefect_api")


def stages(outcome: dict[str, Any]) -> dict[str, bool]:
    return {one["stage"]: one["cached"] for one in outcome["stages"]}


ALL = ["prepare", "train", "export", "evaluate", "decide", "report", "register"]


def test_from_a_table_to_scored_rows_then_all_from_cache_then_one_damaged_folder(
    headrace: Call, recipe_file: Path, table: Path, tmp_path: Path
) -> None:
    code, first, _ = headrace("train", recipe_file)
    assert code == 0
    assert first["version"] == "1"
    assert first["promoted"] is True
    assert first["metrics"]["accuracy"]["value"] > 0.6
    assert stages(first) == dict.fromkeys(ALL, False)
    assert "<html" in Path(first["report"]).read_text(encoding="utf-8")

    code, report, _ = headrace(
        "score", "models:/tiny@champion", table, tmp_path / "out", "--keep", "label"
    )
    assert code == 0
    assert report["rows"] == 1200
    scored = pq.read_table(sorted((tmp_path / "out").glob("part-*.parquet")))
    assert scored.column_names[:2] == ["row", "input_label"]
    assert scored["model_version"].to_pylist() == ["tiny/1"] * 1200
    hits = sum(
        truth == label
        for truth, label in zip(
            scored["input_label"].to_pylist(), scored["label"].to_pylist(), strict=True
        )
    )
    assert hits > 800

    code, second, _ = headrace("train", recipe_file)
    assert code == 0
    assert second["version"] == "1"
    assert stages(second) == dict.fromkeys(ALL, True)
    assert second["run_id"] == first["run_id"]

    export = next(one for one in first["stages"] if one["stage"] == "export")
    (Path(export["folder"]) / "model" / "manifest.json").write_text("{}")
    _, third, _ = headrace("train", recipe_file)
    assert stages(third) == {
        "prepare": True,
        "train": True,
        **dict.fromkeys(["export", "evaluate", "decide", "report", "register"], False),
    }
    assert third["version"] == "2"


def test_a_first_model_below_its_baseline_is_refused_and_told_so(
    headrace: Call, recipe_file: Path
) -> None:
    code, first, _ = headrace(
        "train", recipe_file, "train.max_steps=2", "promote.baseline=not_below"
    )
    assert code == 3
    assert (first["promoted"], first["had_champion"]) == (False, False)
    assert first["baseline_difference"]["high"] < 0
    assert any(one.startswith("The TF-IDF baseline is better:") for one in first["reasons"])


def test_a_worse_candidate_is_refused_a_better_one_promoted_and_rolled_back(
    headrace: Call, recipe_file: Path, tmp_path: Path
) -> None:
    test = f"data.source.test={write_csv(tmp_path / 'test.csv', sentences(400, seed=7))}"
    rows = sentences(1200)
    clean = f"data.source.train={write_csv(tmp_path / 'clean.csv', rows)}"
    labels = [label for _, label in rows]
    random.Random(0).shuffle(labels)
    shuffled = [(text, label) for (text, _), label in zip(rows, labels, strict=True)]
    wrong = f"data.source.train={write_csv(tmp_path / 'shuffled.csv', shuffled)}"

    code, weak, _ = headrace("train", recipe_file, test, clean, "train.max_steps=25")
    assert code == 0
    code, worse, _ = headrace("train", recipe_file, test, wrong)
    assert code == 3
    assert worse["promoted"] is False
    assert worse["smallest_detectable"] > 0
    code, better, _ = headrace("train", recipe_file, test, clean)
    assert code == 0
    assert better["metrics"]["accuracy"]["value"] > weak["metrics"]["accuracy"]["value"]

    code, entry, _ = headrace("rollback", "tiny")
    assert code == 0
    assert (entry["from_version"], entry["to_version"]) == ("3", "1")
    code, told, _ = headrace("history", "tiny")
    assert code == 0
    champion = [one for one in told if one["alias"] == "champion"]
    assert [one["to_version"] for one in champion] == ["1", "3", "1"]
    challenger = [one for one in told if one["alias"] == "challenger"]
    assert [one["to_version"] for one in challenger] == ["2"]


def test_a_typo_starts_nothing(headrace: Call, recipe_file: Path, home: Path) -> None:
    code, value, _ = headrace("train", recipe_file, "train.epoch=3")
    assert code == 2
    assert "did you mean 'epochs'?" in value["error"]
    assert not (home / "artifacts").exists()


def test_init_writes_a_recipe_that_train_accepts(
    headrace: Call, table: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    code, value, _ = headrace("init", table, "-o", recipe)
    assert code == 0
    assert json.loads(json.dumps(value))["recipe"] == str(recipe)
    code, facts, _ = headrace("check", recipe)
    assert code == 0
    assert facts["head"]["labels"] == ["food", "space", "sport"]


def test_a_champion_that_knows_the_test_rows_is_told_before_the_training(
    headrace: Call, home: Path, recipe_file: Path, table: Path, tmp_path: Path
) -> None:
    """Of a version that was trained on the table that is to test now."""
    import numpy as np

    from headrace.tasks.data import splits, training_texts
    from headrace.tasks.registry import model_store, versions
    from tests.fabricated import seal, versions_in_registry

    rows = sentences(200, seed=11)
    versions_in_registry("tiny", 1, tmp_path / "stored")
    model = tmp_path / "stored" / model_store.FOLDER
    hashes = [splits.hash64(splits.normalise(text)) for text, _ in rows]
    training_texts.write(model, np.array(hashes, np.uint64))
    seal("tiny", "1", model)
    versions.promote("tiny", "1")
    test = f"data.source.test={write_csv(tmp_path / 'test.csv', rows)}"
    code, value, _ = headrace("train", recipe_file, test)
    assert code == 2
    assert (
        "200 of 200 test rows are texts that champion tiny version 1 was trained" in value["error"]
    )
    assert not (home / "artifacts" / "train").exists()


def test_a_champion_that_changes_meanwhile_is_decided_against_and_a_damaged_one_needs_a_floor(
    headrace: Call,
    workspace: Path,
    exported: Any,
    evaluated: Any,
    home: Path,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Version 1 is champion and always wrong, version 2 is as good as the candidate. The stages up
    to the decision are those of the session."""
    from headrace.flows import training
    from headrace.tasks.registry import versions
    from headrace.tasks.reporting.report import report
    from tests.fabricated import seal, versions_in_registry

    shutil.copytree(workspace / "artifacts", home / "artifacts")
    versions_in_registry("tiny", 2, tmp_path / "stored", apart=True)
    wrong, right = (tmp_path / "stored" / str(i) / "artifacts" / "model" for i in range(2))
    content = json.loads((wrong / "manifest.json").read_bytes())
    content["head"]["labels"] = ["space", "sport", "food"]
    (wrong / "manifest.json").write_text(json.dumps(content))
    seal("tiny", "1", wrong)
    shutil.copytree(exported.path / "model", right, dirs_exist_ok=True)
    seal("tiny", "2", right)
    versions.promote("tiny", "1")

    @functools.wraps(report)
    def report_and_promote(*args: Any) -> Any:
        """What somebody does by hand between a decision and its registration, once."""
        monkeypatch.setattr(training, "report", report)
        versions.promote("tiny", "2")
        return report(*args)

    monkeypatch.setattr(training, "report", report_and_promote)
    code, outcome, err = headrace("train", recipe_file)
    assert "Promoted over version 1" in err
    assert "the champion of tiny is now version 2; deciding again" in err
    assert (code, outcome["promoted"]) == (3, False)
    told = versions.history("tiny")
    assert [(one.alias, one.to_version) for one in told] == [
        ("champion", "1"), ("champion", "2"), ("challenger", "3"),
    ]  # fmt: skip
    assert (told[-1].decision or {})["compared_with"] == "2"

    (right / "golden.json").write_text("{}")
    code, outcome, err = headrace("train", recipe_file)
    assert code == 3
    assert "champion tiny version 2 cannot be used" in err
    assert "promote.min_value to promote without a comparison" in " ".join(outcome["reasons"])
    assert versions.history("tiny")[-1].alias == "challenger"
    code, outcome, _ = headrace("train", recipe_file, "promote.min_value=0.5")
    assert (code, outcome["promoted"]) == (0, True)
    last = versions.history("tiny")[-1]
    assert (last.from_version, last.to_version) == ("2", "3")
    assert last.why.startswith("Promoted without a comparison, replacing version 2")
