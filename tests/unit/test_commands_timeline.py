"""`moodline timeline` against a running API."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from moodline import ApiError
from moodline.services.api.server import ApiServer
from moodline.services.cli.timeline import TABLE_POINTS, timeline
from moodline.shared.errors import OutputError
from tests.support.api import ApiWorld, nobody, smiling

app = typer.Typer()
app.command()(timeline)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        world.add("lobby")
        yield world


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def ok(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_table(world: ApiWorld) -> None:
    world.play("lobby", [smiling(), nobody(), nobody(), smiling(share=0.3)])
    rows = [line.split() for line in ok("lobby").splitlines() if line.strip().startswith("0:0")]
    assert rows == [
        ["0:00", "happy", "happy", "80%,", "neutral", "20%", "5", "5"],
        ["0:01", "to", "0:03", "-", "no", "face", "0", "10"],
        ["0:03", "neutral", "neutral", "70%,", "happy", "30%", "5", "5"],
    ]


def test_a_table_is_kept_readable(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * (TABLE_POINTS + 1))
    assert "10 s per row" in ok("lobby")
    assert "1 s per row" in ok("lobby", "--max-points", "200")
    assert "1 min per row" in ok("lobby", "--resolution", "1min")


def test_json(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 100)
    printed = json.loads(ok("lobby", "--from", "-30s", "--to", "-20s", "--format", "json"))
    assert printed == world.get("/streams/lobby/timeline", **{"from": "-30s", "to": "-20s"}).json()
    assert len(printed["points"]) == 10


def test_csv(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 100)
    printed = ok("lobby", "--resolution", "10s", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(printed, newline="")))
    assert [row["position_s"] for row in rows] == [f"{10.0 * n}" for n in range(10)]


def test_a_picture_that_is_there_stays_unless_forced(world: ApiWorld, tmp_path: Path) -> None:
    world.play("lobby", [smiling()])
    picture = tmp_path / "t.png"
    picture.write_bytes(b"mine")
    assert isinstance(run("lobby", "--plot", str(picture)).exception, OutputError)
    assert picture.read_bytes() == b"mine"
    assert run("lobby", "--plot", str(picture), "--force").exit_code == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_plot(world: ApiWorld, tmp_path: Path) -> None:
    world.play("lobby", [smiling(), nobody()])
    picture = tmp_path / "t.png"
    result = run("lobby", "--plot", str(picture), "--format", "csv")
    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "drawn into" in result.stderr
    assert result.stdout.startswith("start,"), "nothing but the CSV on standard output"


def test_a_picture_that_cannot_be_written(world: ApiWorld, tmp_path: Path) -> None:
    assert isinstance(run("lobby", "--plot", str(tmp_path / "absent" / "t.png")).exception, OutputError)


def test_nothing_yet(world: ApiWorld) -> None:
    assert "nothing is in the timeline here yet" in ok("lobby")


def test_what_the_api_refuses(world: ApiWorld) -> None:
    for arguments in (("absent",), ("lobby", "--from", "yesterday"), ("lobby", "--from", "now", "--to", "-1s")):
        assert isinstance(run(*arguments).exception, ApiError)


@pytest.mark.parametrize(
    "arguments",
    [("lobby", "--resolution", "1s", "--max-points", "5"), ("lobby", "--format", "xml"), ("lobby", "--max-points", "1"), ()],
)
def test_usage_errors(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_asking_needs_no_server_packages() -> None:
    absent = (
        "import sys; sys.modules |= dict.fromkeys(['fastapi', 'starlette', 'uvicorn', 'matplotlib', 'tensorflow', 'av', 'cv2'])"
    )
    asked = subprocess.run(
        [sys.executable, "-c", f"{absent}; import moodline.services.cli.streams, moodline.services.cli.timeline"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr


def test_a_window_that_is_longer_than_the_file_shows_the_file(world: ApiWorld) -> None:
    world.play("lobby", [smiling()] * 15)
    printed = ok("lobby", "--from", "-1h")
    assert "1 s per row" in printed
    rows = [line.split()[0] for line in printed.splitlines() if line.strip().startswith("0:")]
    assert rows == [f"0:{second:02}" for second in range(15)]
    assert ok("lobby", "--from", "-1h", "--format", "csv").count("\n") == 16
