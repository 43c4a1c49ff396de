"""The command line: `headrace COMMAND`, where `COMMANDS` has the function of each.

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
from typing import Any, TextIO

from headrace.configs import secrets
from headrace.configs.errors import UserError, is_wrong_name
from headrace.flows.arguments import parser
from headrace.serving.errors import ServingError
from headrace.serving.tables.dialect import NAMES as DIALECT

os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # read when huggingface_hub is imported
DONE, FAILED, WRONG_USAGE, NOT_PROMOTED, TOO_MANY_REJECTED = range(5)
LOGGER = "headrace"
CHATTY = ("huggingface_hub", "datasets")
"""Libraries that log every retry; the final error says what failed."""

Result = tuple[int, object, str]
"""Exit code, the object for --json, and the text for people."""


def main(argv: Sequence[str] | None = None) -> int:
    return call(argv)[0]


def call(argv: Sequence[str] | None = None) -> tuple[int, Any]:
    """Run one command line, print its result, and return the exit code with the --json object."""
    secrets.note(sys.argv[1:] if argv is None else list(argv))
    arguments = parser(COMMANDS).parse_args(argv)
    _log_to_stderr(_level(arguments))
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


def _say(told: object, file: TextIO | None = None) -> None:
    """Print text or a JSON value, with secrets masked; all output of commands goes through here."""
    if isinstance(told, str):
        text = secrets.mask(told)
    else:
        value = secrets.masked(told)
        text = json.dumps(value, ensure_ascii=False, default=str)
        if not _can_show(text, file):
            text = json.dumps(value, default=str)
    if not _can_show(text, file):  # a terminal of ASCII, or a file's name that is not UTF-8
        encoding = (file or sys.stdout).encoding or "ascii"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    print(text, file=file)


def _can_show(text: str, file: TextIO | None) -> bool:
    try:
        text.encode((file or sys.stdout).encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _failed(problem: Exception, code: int, arguments: argparse.Namespace) -> tuple[int, object]:
    if arguments.debug:
        _say("".join(traceback.format_exception(problem)).rstrip(), sys.stderr)
    text = str(problem) or type(problem).__name__
    text = text.removeprefix(f"[Errno {getattr(problem, 'errno', None)}] ")
    if code == FAILED:
        text = f"{type(problem).__name__}: {text} (--debug shows the traceback)"
    value = {"error": text, "exit_code": code}
    if arguments.json:
        _say(value)
    _say(f"headrace: {text}", sys.stderr)
    return code, value


def _level(arguments: argparse.Namespace) -> int:
    if arguments.quiet:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        return logging.ERROR
    return logging.DEBUG if arguments.debug else logging.INFO


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


# --- commands -------------------------------------------------------------------------------------


def init(arguments: argparse.Namespace) -> Result:
    from headrace.flows import project
    from headrace.tasks.data.asked import Asked
    from headrace.tasks.data.infer_recipe import write_recipe

    asked = Asked(
        arguments.text,
        arguments.text_pair,
        arguments.label,
        arguments.objective,
        arguments.feature or (),
    )
    stated = {name: getattr(arguments, name) for name in DIALECT}
    table, test = (path and Path(path) for path in (arguments.table, arguments.test))
    if arguments.project:
        if arguments.output:
            raise UserError("--output cannot be used with --project, which names the recipe itself")
        made = project.write(
            Path(arguments.project),
            table,
            asked=asked,
            test=test,
            name=arguments.name,
            stated=stated,
        )
        return DONE, dataclasses.asdict(made), made.text()
    if table is None:
        raise UserError(
            "init needs a TABLE; or --project, which also writes an example without one"
        )
    recipe, text = write_recipe(
        table,
        asked=asked,
        test=test,
        name=arguments.name,
        recipe=arguments.output and Path(arguments.output),
        stated=stated,
    )
    return (
        DONE,
        {"recipe": str(recipe)},
        f"{text}\nNext: headrace check {recipe}, then headrace train {recipe}",
    )


def check(arguments: argparse.Namespace) -> Result:
    from headrace.configs.load import load
    from headrace.flows import data_summary, summary
    from headrace.tasks import preflight
    from headrace.tasks.data.prepare import prepare

    recipe = load(arguments.recipe, arguments.overrides)
    prepared = prepare(recipe)
    preflight.check(recipe, prepared)
    data = data_summary.of_data(recipe, prepared)
    lines = [
        summary.line("prepare", prepared),
        *data.lines(),
        *summary.of_check(recipe, prepared),
    ]
    value = {"folder": str(prepared.path), **prepared.facts, **data.to_dict()}
    return DONE, value, "\n".join(lines)


def train(arguments: argparse.Namespace) -> Result:
    from headrace.flows import run

    outcome = run.train(arguments.recipe, *arguments.overrides, verbose=arguments.debug)
    from headrace.flows import summary

    value = dataclasses.asdict(outcome)
    return (DONE if outcome.promoted else NOT_PROMOTED), value, summary.text(outcome)


OPTIONS = (
    "text", "text_pair", "keep", "variant",
    "device", "engine", "format", "partition_by", "chunk_rows", "retry_rejected", "max_rejected",
    "tune", "probabilities", "max_row_bytes", "csv_safe", "min_probability", "target_accuracy",
)  # fmt: skip


def score(arguments: argparse.Namespace) -> Result:
    from headrace.flows import run
    from headrace.serving.jobs.spec import FIELDS
    from headrace.tasks.scoring.score import PAGE

    options = {name: getattr(arguments, name) for name in (*OPTIONS, *DIALECT)}
    if arguments.option:
        from headrace.configs.load import values_of

        asked = values_of(arguments.option)
        for name in asked.keys() & {*vars(arguments), *FIELDS, "source", "on_progress"}:
            raise UserError(f"--option {name} is a job setting; use its own flag")
        options |= asked
    output, report = run.scored(
        arguments.model,
        arguments.input,
        arguments.output,
        options,
        # Importing Prefect takes seconds: only if its API is set, to show the run there.
        as_flow="PREFECT_API_URL" in os.environ,
        verbose=arguments.debug,
    )
    code = TOO_MANY_REJECTED if report.too_many_rejected else DONE
    page = f"{output.rstrip('/')}/{PAGE}"
    for problem in report.unreadable.values():
        _say(f"headrace: left out: {problem}", sys.stderr)
        code = WRONG_USAGE
    return code, {**report.to_dict(), "page": page}, f"{report.text()}\n{page}"


def bench(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.scoring.score import bench as run

    found = run(
        arguments.model,
        arguments.input,
        text=arguments.text,
        text_pair=arguments.text_pair,
        device=arguments.device,
        stated={name: getattr(arguments, name) for name in DIALECT},
    )
    rows = [{**dataclasses.asdict(one), "tokens_per_second": speed} for one, speed in found.items()]
    lines = [
        f"{row['variant']:<8} {row['tokens_per_second']:>10,.0f} tokens/s, "
        f"{row['workers']} workers on {row['provider']}"
        for row in rows
    ]
    return DONE, rows, "\n".join(lines)


def compare(arguments: argparse.Namespace) -> Result:
    from headrace.flows import progress, summary
    from headrace.tasks.scoring import compare as comparing

    with progress.of_scoring() as on_progress:
        found = comparing.compare(
            arguments.a,
            arguments.b,
            arguments.input,
            arguments.output,
            text=arguments.text,
            text_pair=arguments.text_pair,
            label=arguments.label,
            table_format=arguments.format,
            device=arguments.device,
            on_progress=on_progress,
            **{name: getattr(arguments, name) for name in DIALECT},
        )
    return DONE, found.to_json(), summary.of_comparison(found)


def models(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import listing, tracking

    listed = listing.models(arguments.name)
    nothing = f"no models in the registry {tracking.registry_uri()}"
    text = "\n".join(one.line() for one in listed) or nothing
    return DONE, [dataclasses.asdict(one) for one in listed], text


def history(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import by_reference

    entries = by_reference.history(arguments.model)
    text = (
        "\n".join(entry.line() for entry in entries) or f"{arguments.model}: no alias has moved yet"
    )
    return DONE, [dataclasses.asdict(entry) for entry in entries], text


def promote(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import by_reference

    entry = by_reference.promote(arguments.model, arguments.version, reason=arguments.reason)
    return DONE, dataclasses.asdict(entry), entry.line()


def rollback(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.registry import by_reference

    entry = by_reference.rollback(arguments.model, reason=arguments.reason)
    return DONE, dataclasses.asdict(entry), entry.line()


def report(arguments: argparse.Namespace) -> Result:
    import webbrowser

    from headrace.tasks.registry.resolve import report_of

    if arguments.target_accuracy is not None:
        from headrace.flows import summary
        from headrace.tasks.scoring import promise

        found = promise.of_model(arguments.model, arguments.target_accuracy)
        return DONE, dataclasses.asdict(found), summary.of_promise(found)
    page = report_of(arguments.model)
    if sys.stdout.isatty() and not arguments.json:
        webbrowser.open(page.as_uri())
    return DONE, {"report": str(page)}, str(page)


def clean(arguments: argparse.Namespace) -> Result:
    from headrace.tasks.training import interrupted

    found = interrupted.trainings()
    obsolete = [one for one in found if one.is_obsolete]
    size = f"{sum(one.size_bytes for one in obsolete) / 1e6:,.0f} MB"
    removed = [one for one in obsolete if arguments.delete and interrupted.remove(one)]
    ending = (
        f"{len(removed)} of {len(found)} removed, {size}"
        if arguments.delete
        else f"{len(obsolete)} of {len(found)} can never be resumed, {size}; "
        "`headrace clean --delete` removes them"
    )
    value = {
        "trainings": [dataclasses.asdict(one) for one in found],
        "removed": [one.folder for one in removed],
    }
    return DONE, value, "\n".join([*(one.line() for one in found), ending])


def completion(arguments: argparse.Namespace) -> Result:
    import shtab

    script = shtab.complete(parser(COMMANDS), arguments.shell)
    return DONE, {"script": script}, script


COMMANDS: dict[str, Callable[[argparse.Namespace], Result]] = {
    command.__name__: command
    for command in (
        init, check, train, bench, score, compare,
        models, report, history, promote, rollback, clean, completion,
    )
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
