"""The command line's arguments: every command in the help, old names told, completion."""

from __future__ import annotations

import pytest

from headrace.flows import cli
from headrace.flows.arguments import COMMANDS, GROUPS, parser


def test_the_help_groups_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS) == sorted(cli.COMMANDS)
    with pytest.raises(SystemExit, match="0"):
        parser(cli.COMMANDS).parse_args(["--help"])
    told = capsys.readouterr().out
    for name, (about, _) in COMMANDS.items():
        assert f"  {name:<12} {about}" in told


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser(cli.COMMANDS).parse_args(["--version"])
    assert capsys.readouterr().out == "headrace 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "reviews", "2", "--why", "x"], "--why was renamed to --reason"),
        (["rollback", "reviews", "--why", "x"], "--why was renamed to --reason"),
        (
            ["score", "m", "in", "out", "--format", "csv", "--format", "csv"],
            "--format may be given only once",
        ),
        (["models", "--quiet", "--debug"], "--debug: not allowed with argument --quiet"),
    ],
)
def test_wrong_options_are_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser(cli.COMMANDS).parse_args(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(shell: str) -> None:
    arguments = parser(cli.COMMANDS).parse_args(["completion", shell])
    code, value, script = arguments.run(arguments)
    assert code == cli.DONE
    assert value == {"script": script}
    assert all(name in script for name in COMMANDS)
