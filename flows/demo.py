"""`make demo`: the docstrings recipe from text to scored rows, with what this machine has.

The same calls a user makes: `headrace train`, then `headrace score` on rows training never saw.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from flows import cli

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs" / "docstrings.yaml"
MODEL = "models:/docstrings@champion"


def main() -> int:
    # A candidate that is refused (exit 3) is a finished run: the champion scores.
    code, outcome = cli.call(["train", str(RECIPE)])
    if code not in (cli.DONE, cli.REFUSED):
        return code
    from tasks import workspace
    from tasks.models import resolve

    folder = workspace.home() / "demo"
    table = write_held_out(Path(outcome["stages"][0]["folder"]), folder / "held-out.csv")
    output = folder / f"predictions-{resolve(MODEL).version_label.replace('/', '-')}"
    code, report = cli.call(["score", MODEL, str(table), str(output), "--keep", "label"])
    if code == cli.DONE:
        print(closing(report, output, Path(outcome["report"]), workspace.home()))
    return code


def write_held_out(prepared: Path, table: Path) -> Path:
    """The test rows as a CSV with their true labels, written aside and renamed."""
    import json

    from datasets import load_from_disk

    labels = json.loads((prepared / "head.json").read_bytes())["labels"]
    table.parent.mkdir(exist_ok=True)
    aside = table.with_suffix(".tmp")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in load_from_disk(str(prepared / "test")):
            writer.writerow([row["text"], labels[row["labels"]]])
    aside.replace(table)
    return table


def closing(report: dict[str, Any], output: Path, page: Path, home: Path) -> str:
    return f"""
{report["rows"]:,} held-out rows, scored with {report["model_version"]} ({report["variant"]}).
  predictions  {output}
  report       {page}
  registry     {home / "mlflow.db"}

Next:
  .venv/bin/headrace history docstrings       what happened to the champion, and why
  .venv/bin/headrace report docstrings        opens the page in a browser
  .venv/bin/headrace init YOUR-TABLE.csv      writes a recipe for your own rows
  .venv/bin/mlflow ui --backend-store-uri sqlite:///{home / "mlflow.db"}"""


if __name__ == "__main__":
    sys.exit(main())
