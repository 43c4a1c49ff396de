"""The command line: `headrace init|check|train|score|bench|history|promote|rollback|report`.

Exit codes: 0 done; 1 failed; 2 wrong usage, recipe or input (if some of several input files cannot
be read, the others are scored); 3 the run succeeded and promotion was refused; 4 finished with
rejected rows above the limit; 130 interrupted. Each command imports only what it needs, so that
`headrace score` does not wait for torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from headrace.configs import secrets
from headrace.configs.errors import UserError, is_wrong_name
from headrace.serving.errors import ServingError

if TYPE_CHECKING:
    from headrace.serving.jobs.report import Report

os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # read when huggingface_hub is imported
ABOUT = "Fine-tune text models on a schedule and score a lot of text cheaply."
DONE, FAILED, WRONG_USAGE, REFUSED, REJECTED = range(5)
LOGGER = "headrace"
CHATTY = ("huggingface_hub", "datasets")
"""Libraries that log every retry; the final error says what failed."""

Result = tuple[int, Any, str]
"""Exit code, the object for --json, and the text for people."""


def main(argv: Sequence[str] | None = None) -> int:
    return call(argv)[0]


def call(argv: Sequence[str] | None = None) -> tuple[int, Any]:
    """Run one command line, print its result, and return the exit code with the --json object."""
    secrets.note(sys.argv[1:] if argv is None else list(argv))
    arguments = parser().parse_args(argv)
    _log_to_stderr(logging.DEBUG if arguments.debug else logging.INFO)
    try:
        code, value, text = arguments.run(arguments)
    except (UserError, ServingError) as problem:
        return _failed(problem, WRONG_USAGE, arguments)
    except KeyboardInterrupt:
        return 130, None
    except Exception as problem:  # noqa: BLE001  # the last resort; --debug shows the traceback
        code = WRONG_USAGE if is_wrong_name(problem) else FAILED
        return _failed(problem, code, arguments)
    _say(value if arguments.json else text)
    return code, value


def _say(told: Any, file: TextIO | None = None) -> None:
    """Print text or a JSON value, with secrets masked; all output of commands goes through here."""
    if isinstance(told, str):
        print(secrets.mask(told), file=file)
    else:
        print(json.dumps(secrets.masked(told), ensure_ascii=False, default=str), file=file)


def _failed(problem: Exception, code: int, arguments: argparse.Namespace) -> tuple[int, Any]:
    if arguments.debug:
        _say("".join(traceback.format_exception(problem)).rstrip(), sys.stderr)
    text = str(problem) or type(problem).__name__
    text = text.removeprefix(f"[Errno {getattr(problem, 'errno', None)}] ")
    if code == FAILED:
        text = f"{type(problem).__name__}: {text} (--debug shows where)"
    value = {"error": text, "exit_code": code}
    if arguments.json:
        _say(value)
    _say(f"headrace: {text}", sys.stderr)
    return code, value


def _log_to_stderr(level: int) -> None:
    """Log our own messages as plain lines; of other libraries only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
    for name in CHATTY if level > logging.DEBUG else ():
        logging.getLogger(name).setLevel(logging.ERROR)


def _silence_prefect(*, unless: bool) -> None:
    """Stop Prefect from printing each failure with its traceback.

    We print one line instead, and the API still gets the whole traceback.
    """
    if not unless:
        logging.getLogger("prefect").propagate = False


# --- commands -------------------------------------------------------------------------------------


def init(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.data.infer_recipe import write_recipe

    recipe, text = write_recipe(
        Path(arguments.table),
        text=arguments.text,
        label=arguments.label,
        test=arguments.test and Path(arguments.test),
        name=arguments.name,
        recipe=arguments.output and Path(arguments.output),
    )
    return (
        DONE,
        {"recipe": str(recipe)},
        f"{text}\nNext: headrace check {recipe}, then headrace train {recipe}",
    )


def check(arguments: argparse.Namespace) -> Result:
    from headrace.configs.load import load
    from headrace.flows import summary
    from headrace.tasks import preflight
    from headrace.tasks.data.prepare import prepare

    recipe = load(arguments.recipe, arguments.overrides)
    prepared = prepare(recipe)
    preflight.check(recipe, prepared)
    text = "\n".join([summary.line("prepare", prepared), *summary.of_check(recipe, prepared)])
    return DONE, {"folder": str(prepared.path), **prepared.facts}, text


def train(arguments: argparse.Namespace) -> Result:
    from headrace.configs.load import load
    from headrace.flows.prefect_server import prefect_api

    load(arguments.recipe, arguments.overrides)  # reports a typo before anything starts
    with prefect_api(verbose=arguments.debug):
        from headrace.flows import summary
        from headrace.flows.training import training

        _silence_prefect(unless=arguments.debug)
        recipe = str(Path(arguments.recipe).resolve())
        # Prefect stores the parameters of a flow run.
        overrides = [secrets.concealed(one) for one in arguments.overrides]
        outcome = cast(summary.Outcome, training(recipe, overrides))
    value = dataclasses.asdict(outcome)
    return (DONE if outcome.promoted else REFUSED), value, summary.text(outcome)


JOBS_OWN = (
    "source",
    "on_progress",
    "model_version",
    "text_column",
    "token_budget",
    "workers",
    "threads",
)
"""Arguments of a job that --option may not set, like those of the command line itself."""
OPTIONS = (
    "device", "engine", "format", "partition_by", "chunk_rows", "retry_rejected", "max_rejected",
    "tune", "probabilities", "max_row_bytes", "csv_safe",
)  # fmt: skip


def score(arguments: argparse.Namespace) -> Result:
    from headrace.flows import due
    from headrace.tasks.scoring.score import PAGE

    arguments.output = due.today(arguments.output)
    options = {name: getattr(arguments, name) for name in OPTIONS}
    if arguments.option:
        from headrace.configs.load import values_of

        asked = values_of(arguments.option)
        for name in asked.keys() & {*vars(arguments), *JOBS_OWN}:
            raise UserError(f"--option {name}: not of the model, but of the job")
        options |= asked
    given = {
        "model": arguments.model,
        "source": arguments.input,
        "output": arguments.output,
        "text": arguments.text,
        "keep": arguments.keep,
        "variant": arguments.variant,
        "options": options,
    }
    # Importing Prefect takes seconds: only if its API is set, to show the run there.
    in_prefect = "PREFECT_API_URL" in os.environ
    report = _scored_as_flow(given, arguments) if in_prefect else _scored(**given)
    code = REJECTED if report.too_many_rejected else DONE
    page = f"{arguments.output.rstrip('/')}/{PAGE}"
    for problem in report.unreadable.values():
        _say(f"headrace: left out: {problem}", sys.stderr)
        code = WRONG_USAGE
    return code, {**report.to_dict(), "page": page}, f"{report.text()}\n{page}"


def _scored(options: dict[str, Any], **given: Any) -> Report:
    from headrace.flows import progress
    from headrace.tasks.scoring.score import score as run

    with progress.of_scoring() as on_progress:
        return run(**given, **options, on_progress=on_progress)


def _scored_as_flow(given: dict[str, Any], arguments: argparse.Namespace) -> Report:
    from headrace.flows.prefect_server import prefect_api

    with prefect_api(verbose=arguments.debug):
        from headrace.flows.scoring import LEFT_OUT, scoring
        from headrace.serving.jobs.report import Report
        from headrace.serving.jobs.storage import open_output
        from headrace.serving.jobs.storage.base import REPORT

        _silence_prefect(unless=arguments.debug)
        state = scoring(**given, return_state=True)
        if state.is_failed() and LEFT_OUT not in str(state.message):
            state.result()  # raises the error
        return Report(**(open_output(arguments.output).read(REPORT) or {}))


def bench(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.scoring.score import bench as run

    found = run(arguments.model, arguments.input, text=arguments.text, device=arguments.device)
    rows = [{**dataclasses.asdict(one), "tokens_per_second": speed} for one, speed in found.items()]
    lines = [
        f"{row['variant']:<8} {row['tokens_per_second']:>10,.0f} tokens/s, "
        f"{row['workers']} workers on {row['provider']}"
        for row in rows
    ]
    return DONE, rows, "\n".join(lines)


def history(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import versions

    entries = versions.history(arguments.name)
    text = "\n".join(entry.line() for entry in entries) or f"{arguments.name}: no alias moved yet"
    return DONE, [dataclasses.asdict(entry) for entry in entries], text


def promote(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import versions

    entry = versions.promote(arguments.name, arguments.version, reason=arguments.reason)
    return DONE, dataclasses.asdict(entry), entry.line()


def rollback(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import versions

    entry = versions.rollback(arguments.name, reason=arguments.reason)
    return DONE, dataclasses.asdict(entry), entry.line()


def report(arguments: argparse.Namespace) -> Result:
    import webbrowser

    from headrace.tasks.registry.resolve import report_of

    page = report_of(arguments.run_or_model)
    if sys.stdout.isatty() and not arguments.json:
        webbrowser.open(page.as_uri())
    return DONE, {"report": str(page)}, str(page)


# --- arguments ------------------------------------------------------------------------------------


class Once(argparse.Action):
    """Action that refuses an option given twice; argparse would silently keep the last value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given_options", set())
        if option_string and self.dest in given:
            parser.error(f"{option_string} may be given once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.register("action", None, Once)

    def error(self, message: str) -> NoReturn:
        super().error(secrets.mask(message))


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="headrace", description=ABOUT)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], Result], about: str) -> Any:
        one = commands.add_parser(run.__name__, help=about, description=about)
        one.set_defaults(run=run)
        one.add_argument("--json", action="store_true", help="print one JSON object")
        one.add_argument("--debug", action="store_true", help="show tracebacks and detail")
        return one

    one = command(init, "look at a table and write a recipe for it")
    one.add_argument("table", metavar="TABLE", help="CSV, JSON lines or Parquet")
    one.add_argument("--text", metavar="COL", help="the column of texts; guessed by default")
    one.add_argument("--label", metavar="COL", help="the column of labels; guessed by default")
    one.add_argument("--test", metavar="TABLE", help="a table of test rows")
    one.add_argument("--name", help="the model's name; by default the table's")
    one.add_argument(
        "-o", "--output", metavar="RECIPE", help="where to write it; by default NAME.yaml"
    )

    for run, about in (
        (check, "check a recipe and its data, without training"),
        (train, "run the whole pipeline to a registered version and a decision"),
    ):
        one = command(run, about)
        one.add_argument("recipe", metavar="RECIPE", help="a YAML file")
        one.add_argument(
            "overrides",
            metavar="section.key=value",
            nargs="*",
            default=[],
            help="values to change, if any",
        )

    def model_and_input(one: Any) -> None:
        one.add_argument(
            "model",
            metavar="MODEL",
            help="NAME (its champion), models:/NAME@ALIAS, models:/NAME/3, a run id or a folder",
        )
        one.add_argument(
            "input",
            metavar="INPUT",
            nargs="+",
            help="files, folders, globs or s3:// URLs: CSV, JSON lines, Parquet, Arrow",
        )
        one.add_argument(
            "--text", metavar="COL", help="the column of texts; by default as it was in training"
        )
        one.add_argument("--device", choices=["auto", "cpu", "cuda", "tensorrt"], default="auto")

    model_and_input(command(bench, "how fast each variant of a model runs on this machine"))
    one = command(score, "score a table into a folder of parts")
    model_and_input(one)
    one.add_argument(
        "output", metavar="OUTPUT", help="a folder or URL; {date}: today; run again to resume"
    )
    one.add_argument(
        "--tune", action="store_true", help="measure first how the model runs fastest here"
    )
    one.add_argument(
        "--keep",
        metavar="COL",
        default=[],
        action="append",
        help="a column to carry along; may be given several times",
    )
    one.add_argument(
        "--variant", metavar="V", help="fp32, fused, int8, fp16; by default the model's choice"
    )
    one.add_argument(
        "--partition-by",
        metavar="COL",
        help="a folder for each value of a column of the output, such as label",
    )
    one.add_argument(
        "--retry-rejected",
        action="store_true",
        help="of a finished job, score only the rows that had an error, from the mended input",
    )
    one.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: the cluster of RAY_ADDRESS",
    )
    one.add_argument("--format", choices=["parquet", "csv", "jsonl"], default="parquet")
    one.add_argument(
        "--probabilities", action="store_true", help="all probabilities, in the order of the labels"
    )
    one.add_argument(
        "--option",
        metavar="NAME=VALUE",
        default=[],
        action="append",
        help="of the model's kind, such as temperature=0.8; may be given several times",
    )
    one.add_argument(
        "--chunk-rows", type=int, metavar="N", help="rows per commit; by default the model's"
    )
    one.add_argument(
        "--max-rejected",
        type=float,
        metavar="SHARE",
        help="above it the exit code is 4; by default the model's",
    )

    one.add_argument(
        "--max-row-bytes",
        type=int,
        metavar="N",
        help="a longer row of the input is one with an error; by default the model's",
    )
    one.add_argument(
        "--csv-safe",
        action=argparse.BooleanOptionalAction,
        help="with --format csv: mark cells that a spreadsheet would run; by default the model's",
    )

    command(history, "what happened to a model's aliases").add_argument("name", metavar="NAME")
    one = command(promote, "make a version the champion")
    one.add_argument("name", metavar="NAME")
    one.add_argument("version", metavar="VERSION")
    one.add_argument("--why", default="by hand", help="goes into the history")
    one = command(rollback, "make the previous champion champion again")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--why", default="by hand", help="goes into the history")
    command(report, "open the report of a run").add_argument(
        "run_or_model", metavar="RUN", help="a run id, NAME (its champion) or models:/NAME/3"
    )
    return top


if __name__ == "__main__":
    sys.exit(main())
