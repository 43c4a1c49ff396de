"""Demo of one of our recipes, from text to scored rows, for `make demo` and its variants.

    python -m headrace.flows.demo [docstrings | translate | generate]

It makes the calls that a user makes: `headrace train`, then `headrace score` on held-out rows.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from headrace import configs
from headrace.flows import cli
from headrace.serving.atomic import replacing
from headrace.tasks.reporting.html import excerpt

RECIPES = Path(configs.__file__).parent
HELD_OUT = {"generate": 40}
"""Held-out rows to score, by recipe; the default is all of them."""
SHOWN, SHOWN_CHARS = 5, 60
"""Scored rows to print, and characters to print of each text."""


def main(recipe: str = "docstrings") -> int:
    file = RECIPES / f"{recipe}.yaml"
    # A run with a refused candidate (exit 3) is finished too: the champion scores.
    code, outcome = cli.call(["train", str(file)])
    if code not in (cli.DONE, cli.NOT_PROMOTED):
        return code
    from headrace.tasks.registry.resolve import resolve
    from headrace.tasks.runtime import workspace

    name, home = outcome["name"], workspace.home()
    model = f"models:/{name}@champion"
    table = home / "demo" / f"{recipe}-held-out.csv"
    write_held_out(file, Path(outcome["stages"][0]["folder"]), table, HELD_OUT.get(recipe))
    output = home / "demo" / f"predictions-{resolve(model).version_label.replace('/', '-')}"
    code, report = cli.call(["score", model, str(table), str(output), "--keep", "expected"])
    if code == cli.DONE:
        print(some_rows(table, output))
        print(closing(name, report, output, Path(outcome["report"]), home))
    return code


def write_held_out(recipe: Path, prepared: Path, table: Path, n_rows: int | None) -> None:
    """Write the test rows and their expected outputs as CSV, aside and renamed."""
    from datasets import load_from_disk

    from headrace.configs.load import load
    from headrace.tasks import objectives

    settings, head = load(recipe), json.loads((prepared / "head.json").read_bytes())
    objective = objectives.get(settings.objective)
    table.parent.mkdir(exist_ok=True)
    with replacing(table) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([str(settings.data.roles.get("text", "text")), "expected"])
        for row in islice(load_from_disk(str(prepared / "test")), n_rows):
            text, expected = row["text"], objective.decode_target(row["labels"], head)
            writer.writerow(objective.split_prompt(text) or [text, expected])


def some_rows(table: Path, output: Path) -> str:
    """Format the first scored rows: the input and the model's output."""
    import pyarrow.parquet as pq

    with table.open(newline="", encoding="utf-8") as file:
        texts = [row[0] for row in islice(csv.reader(file), 1, SHOWN + 1)]
    answers = pq.read_table(output).column(2).to_pylist()  # after `row` and the kept column
    pairs = zip(texts, answers, strict=False)
    return "\n".join(
        f"  {excerpt(text, SHOWN_CHARS)}  →  {excerpt(str(answer), SHOWN_CHARS)}"
        for text, answer in pairs
    )


def closing(name: str, report: Mapping[str, object], output: Path, page: Path, home: Path) -> str:
    return f"""
{report["rows"]:,} held-out rows, scored with {report["model_version"]} ({report["variant"]}).
  predictions  {output}
  report       {page}
  registry     {home / "mlflow.db"}

Next:
  .venv/bin/headrace history {name:<16} what happened to the champion, and why
  .venv/bin/headrace report {name:<17} opens the page in a browser
  .venv/bin/headrace init YOUR-TABLE.csv      writes a recipe for your own rows
  .venv/bin/mlflow ui --backend-store-uri sqlite:///{home / "mlflow.db"}"""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
