"""The last line of a command that was refused names the way out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.cli.app import main
from tests.support.access import make_key
from tests.support.api import ApiWorld

Said = Callable[..., str]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        world.add("lobby")
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        monkeypatch.setenv("COLUMNS", "80")
        yield world


@pytest.fixture
def said(world: ApiWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """What a command that fails says on standard error."""

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["moodline", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("moodline: ")
        assert printed.err.count("\n") == 1, "one line"
        return printed.err

    return run


SHARE = ("alerts", "add", "glad", "share", "--stream", "lobby", "--emotion", "happy")


def test_without_a_key_the_variable_for_it_is_named(world: ApiWorld, said: Said) -> None:
    make_key(world, "boss", Role.ADMIN)
    world.clock.now += 5
    for command in (("streams", "ls"), ("timeline", "lobby"), ("alerts", "ls"), ("models", "ls")):
        assert "MOODLINE_API_KEY" in said(*command), command


def test_a_refused_webhook_names_its_setting(said: Said) -> None:
    for host in ("127.0.0.1:9", "localhost:9", "LOCALHOST.:9", "[::1]:9"):
        line = said(*SHARE, "--threshold", "0.5", "--webhook", f"http://{host}/secret-path")
        assert "MOODLINE_ALERTS_WEBHOOK_ALLOW_LOOPBACK" in line, host
        assert "secret-path" not in line
    line = said(*SHARE, "--threshold", "0.5", "--webhook", "http://10.0.0.7/x")
    assert "MOODLINE_ALERTS_WEBHOOK_ALLOW_PRIVATE" in line


def test_a_missing_threshold_names_its_flag(said: Said) -> None:
    assert "--threshold" in said(*SHARE)
    assert "--emotion" in said("alerts", "add", "glad", "share", "--stream", "lobby", "--threshold", "0.5")


@pytest.mark.parametrize("stream_id", ["front door", "-yard", "x" * 64, "hôtel", "a/b"])
def test_a_bad_id_says_in_words_what_is_allowed(said: Said, stream_id: str) -> None:
    for line in (said("streams", "add", "--", stream_id, "push://"), said("streams", "show", "--", stream_id)):
        assert "1 to 63 characters: letters (a-z, A-Z), digits" in line
        assert "pattern" not in line


def test_a_bad_id_of_a_rule_too(said: Said) -> None:
    assert "1 to 63 characters" in said("alerts", "add", "a rule", "no_faces", "--stream", "lobby")


def test_a_stream_that_is_there_or_is_not(said: Said) -> None:
    assert "lobby" in said("streams", "add", "lobby", "push://")
    assert "yard" in said("streams", "show", "yard")
