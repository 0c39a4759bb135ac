"""Every command's help ends with examples, and each example is one that the command understands."""

import shlex
from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from moodline.services.cli.app import app
from moodline.services.cli.examples import EXAMPLES

WITHOUT = {"ingest", "detector", "classifier", "aggregator", "api", "version"}
"""They have no options."""


def commands(group: click.Command, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_has_examples() -> None:
    assert COMMANDS.keys() - WITHOUT == EXAMPLES.keys()


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    name = next(name for name in sorted(COMMANDS, key=len, reverse=True) if words[: len(name.split())] == name.split())
    COMMANDS[name].make_context(name, words[len(name.split()) :], resilient_parsing=False)


def test_help_shows_defaults_and_examples() -> None:
    said = CliRunner().invoke(app, ["analyze", "--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output
    for text in ("[default: (5)]", "Examples:", "moodline analyze clip.mp4 --plot timeline.png", "--resume"):
        assert text in said, said


def test_help_shows_what_the_api_takes_where_nothing_is_given() -> None:
    said = CliRunner().invoke(app, ["alerts", "add", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for option, default in (
        ("--for", "30"),
        ("--clear-for", "30"),
        ("--window", "10"),
        ("--quiet", "300"),
        ("--direction", "over"),
    ):
        line = next(line for line in said.splitlines() if f" {option} " in line)
        assert f"[default: ({default})]" in line
    said = CliRunner().invoke(app, ["streams", "add", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "(MOODLINE_INGEST_SAMPLE_FPS)" in said


def test_every_option_says_what_holds_where_it_is_left_out() -> None:
    silent = []
    for name, command in COMMANDS.items():
        for option in command.params:
            is_empty = option.default in (None, "", [], ()) and not isinstance(option.show_default, str)  # type: ignore[attr-defined]
            if isinstance(option, click.Option) and not option.is_flag and not option.required and is_empty:
                silent.append(f"{name} {option.opts[0]}")
    assert silent == []
