"""Every table of the command line in a pipe, 80 columns wide: words and numbers, nothing that identifies a row cut."""

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.cli.app import app
from tests.support.access import make_key
from tests.support.api import ApiWorld, nobody, smiling

IDS = ("Front_Door", "front_door", "Yard-2.left", "x" * 63)
TABLES = (
    ("streams", "ls"),
    ("streams", "show", "Front_Door"),
    ("timeline", "Front_Door"),
    ("alerts", "ls"),
    ("alerts", "show", "Sad_Door"),
    ("alerts", "log"),
    ("models", "ls"),
    ("top", "--once"),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a command that asks this API."""
    with ApiWorld(tmp_path_factory.mktemp("plain")) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        for stream_id in IDS:
            world.add(stream_id)
        world.play("Front_Door", [smiling(), smiling(share=0.4), nobody(), smiling()])
        key = make_key(world, "An_Admin", Role.ADMIN)
        world.clock.now += 5
        env = {"MOODLINE_API_URL": server.url, "MOODLINE_API_KEY": key, "COLUMNS": "80"}
        add = ["alerts", "add", "Sad_Door", "share", "--stream", "Front_Door", "--emotion", "sad", "--threshold", "0.4"]
        made = CliRunner().invoke(app, add, env=env)
        assert made.exit_code == 0, made.output
        yield env


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_a_table_in_a_pipe(settings: dict[str, str], command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, command, env=settings)
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert "\x1b" not in result.stdout
    assert "…" not in result.stdout
    assert [line for line in lines if line != line.rstrip()] == []
    if command[0] == "streams" and command[1] == "ls":
        for stream_id in IDS:
            assert any(line.split()[0] == stream_id for line in lines if line), stream_id
    if command[:2] == ("alerts", "ls"):
        assert any("Sad_Door" in line and "Front_Door" in line for line in lines)


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_a_very_narrow_terminal_cuts_nothing(settings: dict[str, str], command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, command, env={**settings, "COLUMNS": "40"})
    assert result.exit_code == 0, (result.output, result.exception)
    lines = result.stdout.splitlines()
    assert [line for line in lines if len(line) > 40] == []
    assert "…" not in result.stdout
    joined = "".join(line.strip() for line in lines)
    if command[0] in ("top", "streams") and command[1] in ("--once", "ls"):
        assert [stream_id for stream_id in IDS if stream_id not in joined] == []
        for word in ("ended", "pending", "0:04 (100%)", "20"):
            assert word in result.stdout
    if command[0] == "timeline":
        assert "happy 80%" in result.stdout
        assert "mostly happy" in result.stdout
