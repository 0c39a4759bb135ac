"""`moodline alerts` against a running API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from moodline import ApiError
from moodline.services.api.server import ApiServer
from moodline.services.cli.alerts import app
from tests.support.api import NOW, ApiWorld, smiling


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        monkeypatch.setenv("COLUMNS", "160")
        world.add("hall", labels={"site": "berlin"})
        yield world


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=typed)


def ok(*arguments: str, typed: str | None = None) -> str:
    result = run(*arguments, typed=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


GLAD = ("add", "glad", "share", "--emotion", "happy", "--threshold", "0.7", "--for", "5", "--window", "1", "--min-faces", "5")


def test_a_rule_is_made_listed_and_removed(world: ApiWorld) -> None:
    assert "there are no alert rules" in ok("ls")
    assert ok(*GLAD, "--label", "site=berlin") == "glad watches site=berlin\n"
    listed = ok("ls")
    assert "happy over 70% for 5 s" in listed
    said = json.loads(ok("ls", "--json"))
    assert [rule["id"] for rule in said["rules"]] == ["glad"]
    assert said["firing"] == []
    assert ok("rm", "glad") == "glad is removed\n"
    assert json.loads(ok("ls", "--json"))["rules"] == []


def test_the_secret_is_printed_once_and_the_url_can_come_from_standard_input(world: ApiWorld) -> None:
    said = ok(*GLAD, "--stream", "hall", "--webhook", "-", typed="https://example.org/token\n")
    assert "https://example.org/*** are signed with whs_" in said
    assert "whs_" not in ok("ls", "--json")
    assert "token" not in ok("ls", "--json")


def test_what_the_api_refuses_is_an_error_with_its_words(world: ApiWorld) -> None:
    result = run("add", "glad", "share", "--stream", "hall", "--emotion", "bored", "--threshold", "0.5")
    assert isinstance(result.exception, ApiError)
    assert "emotion is one of angry" in str(result.exception)


def test_a_dry_run_shows_what_would_have_been(world: ApiWorld) -> None:
    world.play("hall", [*[smiling()] * 8, *[smiling(share=0.2)] * 8])
    ok(*GLAD, "--stream", "hall")
    shown = ok("dry-run", "glad", "--from", NOW, "--to", "2026-05-01T12:00:16Z")
    assert "firing (condition)" in shown
    assert "resolved (cleared)" in shown
    assert json.loads(ok("dry-run", "glad", "--json"))["fired"] == 1
    assert ok("log") == "no alert has fired\n"
    assert json.loads(ok("log", "--json", "--rule", "glad", "--stream", "hall", "--limit", "5")) == []


def test_show_change_enable_and_disable(world: ApiWorld) -> None:
    ok("add", "sad", "share", "--stream", "hall", "--emotion", "sad", "--direction", "over", "--threshold", "0.4")
    assert ok("change", "sad", "--threshold", "0.6", "--note", "tell Ada") == "sad is changed: note, threshold\n"
    shown = ok("show", "sad")
    assert "0.6" in shown
    assert "tell Ada" in shown
    assert "fires on" in shown
    assert ok("disable", "sad") == "sad is disabled\n"
    assert ok("enable", "sad") == "sad is enabled\n"
    assert run("change", "sad").exit_code == 2
