"""docs/cli.md names every command and every option, and none that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import typer

from moodline.services.cli.app import app


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child_name, child in children.items():
        yield from _commands(child, f"{name} {child_name}")


COMMANDS = dict(_commands(typer.main.get_command(app), "moodline"))


def test_every_command_and_option_is_documented(repo: Path) -> None:
    rows = [line for line in (repo / "docs/cli.md").read_text().splitlines() if line.startswith("| `moodline")]
    for name, command in COMMANDS.items():
        matching = [row for row in rows if re.match(rf"\| `{name}[ `]", row)]
        assert len(matching) == 1, f"docs/cli.md has {len(matching)} rows for {name}"
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}" in matching[0], f"docs/cli.md: {name} lacks {option}"


def test_no_row_names_a_command_that_does_not_exist(repo: Path) -> None:
    rows = [line for line in (repo / "docs/cli.md").read_text().splitlines() if line.startswith("| `moodline")]
    for row in rows:
        words = row.split("`")[1].split()
        known = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
        assert known, f"docs/cli.md documents {row.split('`')[1]}, which does not exist"
