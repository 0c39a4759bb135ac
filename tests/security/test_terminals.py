"""Words of others on a terminal: labels, notes, file names, what cameras say, and what a service answers."""

import json
import logging
import re
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from moodline.errors import ApiError
from moodline.services.api import PREFIX
from moodline.services.cli.console import TableConsole, echo_json
from moodline.services.cli.trouble import end_with
from moodline.services.report.export import csv_text
from moodline.shared.log import _TextFormatter
from tests.support.api import ApiWorld

UNFIT = [
    *("\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://attacker.example\x1b\\", "\x1bP$q\x1b\\", "\x9b31m", "\x9d0;x\x9c"),
    *("a\rb", "a\x08b", "\u202egnp.exe", "\u2066a\u2069", "a\u2028b", "\x85"),
]


def unfit_in(text: str) -> list[str]:
    return re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize("text", UNFIT)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_table_shows_commands_to_the_terminal_and_gives_none(text: str, is_terminal: bool) -> None:
    written = StringIO()
    console = TableConsole(file=written, force_terminal=is_terminal, color_system=None, width=120)
    table = Table("name", box=None)
    table.add_row(Text(f"before {text} after"))
    console.print(table)
    console.print(Text(f"before {text} after"), soft_wrap=True)
    assert unfit_in(written.getvalue()) == []
    assert written.getvalue().count("before") == 2
    assert written.getvalue().rstrip().endswith("after")


@pytest.mark.parametrize("text", UNFIT)
def test_json_is_the_same_json_without_them(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo_json(json.dumps({"a": text}, ensure_ascii=False, indent=1))
    printed = capsys.readouterr().out
    assert unfit_in(printed) == []
    assert json.loads(printed) == {"a": text}


@pytest.mark.parametrize("text", UNFIT)
def test_an_error_that_a_service_answers_gives_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(ApiError("invalid_stream", f"no {text} here"), "streams") == 1
    assert unfit_in(capsys.readouterr().err) == []


@pytest.mark.parametrize("text", UNFIT)
def test_no_label_and_no_note_has_them(tmp_path: Path, text: str) -> None:
    with ApiWorld(tmp_path) as world:
        stream = world.http.post(f"{PREFIX}/streams", json={"id": "a", "url": "clip.mp4", "labels": {"site": text}})
        label = world.http.post(f"{PREFIX}/alerts/rules", json={"id": "a", "kind": "offline", "label": f"site={text}"})
        note = world.http.post(f"{PREFIX}/alerts/rules", json={"id": "b", "kind": "offline", "label": "site", "note": text})
        assert [answer.status_code for answer in (stream, label, note)] == [422, 422, 422]


def test_right_to_left_names_and_notes_of_several_lines_are_fit(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        world.add("a", labels={"site": "\u05d7\u05d9\u05e4\u05d4 \u200f1"})
        fields = {"id": "b", "kind": "offline", "label": "site", "note": "Call the desk.\nThen the guard."}
        assert world.http.post(f"{PREFIX}/alerts/rules", json=fields).status_code == 201


def test_an_errors_text_begins_no_line_of_the_log() -> None:
    forged = "12:00:00 info    moodline.audit: audit.entry who=admin"
    try:
        raise ValueError(f"bad name\n{forged}\x1b[2J")
    except ValueError:
        record = logging.LogRecord("moodline.worker", logging.ERROR, "", 0, "stage.failed", (), sys.exc_info())
    written = _TextFormatter().format(record)
    assert forged in written
    assert all(line.startswith("  ") for line in written.split("\n")[1:])
    assert unfit_in(written) == []


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", "|x", "%x", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x"]
)
def test_a_cell_of_csv_is_no_formula(text: str) -> None:
    assert csv_text(text) == f"'{text}"
    assert csv_text(f"a{text}") == f"a{text}"
