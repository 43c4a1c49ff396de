"""The arguments of the command line: what each command takes, and its help.

argparse, as a library with a richer help takes longer to import than `headrace --help` takes whole
(measured in docs/decisions.md); shtab makes the shell's completion from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from headrace.configs import secrets

ABOUT = "Fine-tune text models on a schedule and score a lot of text cheaply."
EXIT_CODES = """exit codes:
  0 done · 1 failed · 2 wrong usage or input, or scored without an unreadable file ·
  3 trained but not promoted · 4 scored with too many rejected rows · 130 interrupted"""
GROUPS = {
    "train": ("init", "check", "train"),
    "score": ("score", "compare", "bench"),
    "the workspace": ("clean",),
    "the registry": ("models", "report", "history", "promote", "rollback"),
    "the shell": ("completion",),
}

Add = Callable[..., argparse.Action]
"""`add_argument` of a parser or of a group."""


class Once(argparse.Action):
    """Action that refuses an option given twice; argparse would silently keep the last value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given_options", set())
        if option_string and self.dest in given:
            parser.error(f"{option_string} may be given only once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Renamed(argparse.Action):
    """Action of an option that has another name now, which `const` tells."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"{self.option_strings[0]} was renamed to {self.const}")


class Version(argparse.Action):
    """Action that prints the version, which is only looked up then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"headrace {version('headrace')}")
        parser.exit()


class Help(argparse.RawDescriptionHelpFormatter):
    """Help without argparse's own list of commands: the epilog has them in groups."""

    def add_argument(self, action: argparse.Action) -> None:
        if not isinstance(action, argparse._SubParsersAction):
            super().add_argument(action)


class Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=Help, **settings)
        self.register("action", None, Once)

    def error(self, message: str) -> NoReturn:
        super().error(secrets.mask(message))


def parser(
    commands: Mapping[str, Callable[[argparse.Namespace], object]],
) -> argparse.ArgumentParser:
    """The whole command line; `commands`: the function of each command, which becomes `run`."""
    top = Parser(prog="headrace", usage="headrace COMMAND ...", description=ABOUT)
    top.add_argument("--version", action=Version, nargs=0, help="print the version")
    subparsers = top.add_subparsers(prog="headrace", required=True, metavar="COMMAND")
    for name, run in commands.items():
        about, arguments = COMMANDS[name]
        command = subparsers.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        arguments(command)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        told = command.add_mutually_exclusive_group()
        told.add_argument("--quiet", action="store_true", help="only the result and errors")
        told.add_argument("--debug", action="store_true", help="show tracebacks and detail")
    top.epilog = "\n\n".join([*map(_grouped, GROUPS), EXIT_CODES])
    return top


def _grouped(group: str) -> str:
    lines = [f"  {name:<12} {COMMANDS[name][0]}" for name in GROUPS[group]]
    return "\n".join([f"{group}:", *lines])


# --- commands -------------------------------------------------------------------------------------


def _init(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("table", metavar="TABLE", nargs="?", help="CSV, JSON, Parquet, CoNLL, ... or a text (.txt)")
    add(
        "--text",
        metavar="COL",
        action="append",
        help="text column (default: guessed); COL,COL or repeated: joined",
    )
    add("--text-pair", metavar="COL", help="column of a second text, classified with the first")
    add(
        "--label",
        metavar="COL",
        action="append",
        help="label column (default: guessed); COL,COL or repeated: 0 or 1 each",
    )
    add(
        "--feature",
        metavar="COL[=KIND]",
        action="append",
        help="column to read beside the text, a number or a category (default: none); repeatable",
    )
    add("--objective", metavar="NAME", help="such as tagging (default: guessed)")
    add("--test", metavar="TABLE", help="a table of test rows")
    add("--name", help="the model's name (default: the table's)")
    add("-o", "--output", metavar="RECIPE", help="file to write (default: NAME.yaml)")
    add(
        "--project",
        metavar="FOLDER",
        nargs="?",
        const=".",
        help="write a team's folder: recipe, flows, schedule, tests (without TABLE: an example)",
    )
    _dialect(parser.add_argument_group("how the table is read (default: found)").add_argument)


def _recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument(
        "overrides",
        metavar="section.key=value",
        nargs="*",
        default=[],
        help="values to change, such as train.epochs=1",
    )


def _model(add: Add) -> None:
    add(
        "model",
        metavar="MODEL",
        help="NAME (its champion), NAME/3, NAME@ALIAS, the same after models:/, "
        "the id of an MLflow run, or a folder",
    )


def _model_and_input(add: Add) -> None:
    _model(add)
    add(
        "input",
        metavar="INPUT",
        nargs="+",
        help="files, folders, globs or s3:// URLs: CSV, JSON lines, Parquet, Arrow",
    )


def _text(add: Add) -> None:
    add(
        "--text",
        metavar="COL",
        action="append",
        help="text column (default: the one used in training); "
        "for a text joined from fields once for each, in their order",
    )
    add("--text-pair", metavar="COL", help="column of the second texts, for a model of pairs")


def _dialect(add: Add) -> None:
    add("--encoding", metavar="NAME", help="encoding of text files, such as windows-1252")
    add("--delimiter", metavar="C", help="delimiter of CSV, one character or `tab`")
    add("--quote", metavar="C", help="quote of CSV, or `none` for no quoting")
    add("--escape", metavar="C", help="character in front of a quote in a CSV field, or `none`")
    add(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of CSV has the column names (if not: column_1, column_2, ...)",
    )
    add(
        "--skip-blanks",
        action=argparse.BooleanOptionalAction,
        help="whether blanks behind a CSV delimiter are left out",
    )


def _device(add: Add) -> None:
    add("--device", choices=["auto", "cpu", "cuda", "tensorrt"], default="auto")


def _bench(parser: argparse.ArgumentParser) -> None:
    _model_and_input(parser.add_argument)
    _text(parser.add_argument)
    _device(parser.add_argument)
    _dialect(parser.add_argument_group("how the input is read (default: the model's)").add_argument)


def _compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    for name in ("a", "b"):
        add(name, metavar=name.upper(), help="a model, as for headrace score: models:/NAME/3, ...")
    add("input", metavar="TABLE", nargs="+", help="files, folders, globs or s3:// URLs")
    add("-o", "--output", metavar="FOLDER", help="folder to write (default: A-vs-B)")
    _text(add)
    add("--label", metavar="COL", help="true labels (default: the column of that name, if any)")
    add("--format", choices=["parquet", "csv"], default="parquet", help="of the table")
    _device(add)
    _dialect(parser.add_argument_group("how the input is read (default: the model's)").add_argument)


def _score(parser: argparse.ArgumentParser) -> None:
    _model_and_input(parser.add_argument)
    parser.add_argument(
        "output", metavar="OUTPUT", help="a folder or URL; {date}: today; run again to resume"
    )
    _score_input(parser.add_argument_group("input").add_argument)
    _dialect(parser.add_argument_group("how the input is read (default: the model's)").add_argument)
    _score_model(parser.add_argument_group("model").add_argument)
    _score_output(parser.add_argument_group("output").add_argument)


def _score_input(add: Add) -> None:
    _text(add)
    add(
        "--keep",
        metavar="COL",
        default=[],
        action="append",
        help="input column to copy to the output; repeatable",
    )
    add(
        "--max-row-bytes",
        type=int,
        metavar="N",
        help="reject rows with more bytes (default: the model's)",
    )
    add(
        "--retry-rejected",
        action="store_true",
        help="in a job that has started: score the rejected rows again, from the corrected input",
    )


def _score_model(add: Add) -> None:
    add(
        "--variant",
        metavar="V",
        help="fp32, fused, int8, fp16, fp16_plain (default: the model's choice)",
    )
    _device(add)
    add("--tune", action="store_true", help="first measure the fastest settings on this machine")
    add(
        "--option",
        metavar="NAME=VALUE",
        default=[],
        action="append",
        help="model-specific option, e.g. temperature=0.8; repeatable",
    )
    add("--probabilities", action="store_true", help="output all probabilities, in label order")
    add(
        "--min-probability",
        type=float,
        metavar="P",
        help="withhold labels of a lower probability, as unsure (default: the model's)",
    )
    _target(add)
    add(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: the cluster at RAY_ADDRESS",
    )


def _score_output(add: Add) -> None:
    add("--format", choices=["parquet", "csv", "jsonl"], default="parquet")
    add(
        "--partition-by",
        metavar="COL",
        help="write one folder per value of this output column, such as label",
    )
    add("--chunk-rows", type=int, metavar="N", help="rows per commit (default: the model's)")
    add(
        "--max-rejected",
        type=float,
        metavar="SHARE",
        help="exit with code 4 above this share of rejected rows (default: the model's)",
    )
    add(
        "--csv-safe",
        action=argparse.BooleanOptionalAction,
        help="with --format csv: mark cells that spreadsheets execute (default: the model's)",
    )


def _target(add: Add) -> None:
    add(
        "--target-accuracy",
        type=float,
        metavar="A",
        help="find the minimum probability that keeps this accuracy, such as 0.95",
    )


def _report(parser: argparse.ArgumentParser) -> None:
    _model(parser.add_argument)
    _target(parser.add_argument)


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a model (default: all)")


def _of_model(parser: argparse.ArgumentParser) -> None:
    _model(parser.add_argument)


def _rollback(parser: argparse.ArgumentParser) -> None:
    _model(parser.add_argument)
    _reason(parser.add_argument)


def _promote(parser: argparse.ArgumentParser) -> None:
    _model(parser.add_argument)
    parser.add_argument(
        "version", metavar="VERSION", nargs="?", help="its number, if MODEL is only a NAME"
    )
    _reason(parser.add_argument)


def _reason(add: Add) -> None:
    add("--reason", default="by hand", help="reason to record in the history")
    add("--why", action=Renamed, const="--reason", help=argparse.SUPPRESS)


def _clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--delete", action="store_true", help="remove those that can never be resumed"
    )


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "init": ("inspect a table and write a recipe for it", _init),
    "check": ("check a recipe and its data, without training", _recipe),
    "train": (
        "run the whole pipeline: train, register a version, decide on its promotion",
        _recipe,
    ),
    "bench": ("measure how fast each variant of a model runs on this machine", _bench),
    "score": ("score tables into a folder of parts", _score),
    "compare": ("show row by row where two versions differ on a table", _compare),
    "models": ("list the registered versions, their aliases and their metric", _models),
    "report": ("open the report of a run", _report),
    "history": ("show who moved a model's aliases, when and why", _of_model),
    "promote": ("make a version the champion", _promote),
    "rollback": ("restore the previous champion", _rollback),
    "clean": ("list interrupted trainings and what they take; see --delete", _clean),
    "completion": ('print a completion script: eval "$(headrace completion bash)"', _completion),
}
