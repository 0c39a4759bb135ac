"""Which API the commands ask, and with which key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from moodline import AccessError, UnreachableError
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.cli.app import app
from tests.support.access import make_key
from tests.support.api import ApiWorld


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a service that asks for one; MOODLINE_API_URL names it."""
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        world.add("lobby")
        key = make_key(world, "desk", Role.VIEWER)
        world.clock.now += 5  # by then the service knows of it
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        yield key


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_without_a_key(key: str) -> None:
    result = run("streams", "show", "lobby")
    assert isinstance(result.exception, AccessError)
    assert result.exception.code == "unauthorized"


@pytest.mark.parametrize("command", [("streams", "ls"), ("timeline", "lobby"), ("models", "ls")])
def test_the_key_of_the_environment(key: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOODLINE_API_KEY", key)
    result = run(*command)
    assert result.exit_code == 0, result.exception
    assert key not in result.output


def test_the_key_of_the_command_line_comes_first(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOODLINE_API_KEY", "mdl_another")
    assert isinstance(run("streams", "ls").exception, AccessError)
    assert run("--api-key", key, "streams", "ls").exit_code == 0


def test_a_role_that_may_not_do_this(key: str) -> None:
    result = run("--api-key", key, "streams", "pause", "lobby")
    assert isinstance(result.exception, AccessError)
    assert result.exception.code == "not_allowed"
    assert key not in str(result.exception)


def test_the_address_of_the_command_line_comes_first(key: str) -> None:
    result = run("--api-url", "http://127.0.0.1:9", "--api-key", key, "streams", "ls")
    assert isinstance(result.exception, UnreachableError)
    assert "http://127.0.0.1:9" in str(result.exception)
