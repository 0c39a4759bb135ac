"""Each line of docs/coming-from.md does what the page says, against a real API."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from moodline import Client
from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.services.cli.app import app
from moodline.shared.classify import ClassifiedPicture, PictureFace
from moodline.shared.previews import Preview, PreviewBoard
from tests.support.api import NOW_US, ApiWorld, nobody, smiling
from tests.support.clocks import StubClock
from tests.support.faces import KEPT_FACES, two_frames

HOST = "http://127.0.0.1:8000"
ROW = re.compile(r"^\| (?P<there>.*) \| `(?P<line>[^|]*)` \|$", re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs/coming-from.md"
ROWS = [(found["there"], found["line"]) for found in ROW.finditer(PAGE.read_text())]


class StubClassifier:
    def classify(self, pictures: Sequence[bytes]) -> list[ClassifiedPicture]:
        face = PictureFace(box=(1.0, 2.0, 3.0, 4.0), score=0.9, quality=0.8, probabilities=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
        return [ClassifiedPicture(width=640, height=360, faces=(face,), model="fer-seed") for _ in pictures]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    board = PreviewBoard(StubClock())
    board.publish(Preview(stream_id="Front_Door", time_us=NOW_US, jpeg=b"\xff\xd8 a picture"))
    intake = Intake(pictures=StubClassifier(), previews=board)
    with ApiWorld(tmp_path, intake=intake, overrides=KEPT_FACES) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        world.add("Front_Door")
        world.play("Front_Door", [smiling(), smiling(share=0.4), nobody(), smiling()], more=(two_frames(),))
        (tmp_path / "photo.jpg").write_bytes(b"a photo")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        monkeypatch.setenv("COLUMNS", "80")
        yield server


def test_every_line_runs(server: ApiServer) -> None:
    assert len(ROWS) > 40
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with Client() as client:
        names: dict[str, object] = {"moodline": client, "Client": Client}
        for there, line in ROWS:
            run(line.replace(HOST, server.url), names, there)
        assert names["names"] == ["happy"]
        assert names["boxes"] == [(1.0, 2.0, 3.0, 4.0)]
        assert names["jpeg"] == b"\xff\xd8 a picture"
        assert len(names["rows"]) == 2  # type: ignore[arg-type]


def run(line: str, names: dict[str, object], there: str) -> None:
    if line.startswith("curl "):
        options = ["--silent", "--show-error", "--fail-with-body", "--max-time", "20"]
        done = subprocess.run([*shlex.split(line), *options], capture_output=True, check=False)
        assert done.returncode == 0, (there, line, done.stdout[:500], done.stderr)
        assert done.stdout, (there, line)
    elif line.startswith("moodline "):
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (there, line, result.output)
    elif line.startswith("mosquitto_sub "):
        assert_topic_is_documented(shlex.split(line)[-1])
    elif line.startswith("sum by "):
        assert_metric_is_documented(line)
    else:
        exec(line, names)


def assert_topic_is_documented(topic: str) -> None:
    """The integration test of MQTT listens to the topics of this page on a real broker."""
    page = (PAGE.parent / "mqtt.md").read_text()
    assert f"`{topic.replace('Front_Door', '<stream>')}`" in page


def assert_metric_is_documented(query: str) -> None:
    found = re.search(r"(\w+)\{(\w+)=", query)
    assert found is not None
    page = (PAGE.parent / "metrics.md").read_text()
    row = next(line for line in page.splitlines() if f"`{found[1]}`" in line)
    assert found[2] in row
    assert "emotion" in row


def test_grafanas_times_give_the_same_window(server: ApiServer) -> None:
    asked = [line for there, line in ROWS if there.startswith(("`$__from`", "`${__from"))]
    with httpx.Client(trust_env=False) as http:
        starts = {http.get(shlex.split(line)[1].replace(HOST, server.url)).json()["start"] for line in asked}
    assert len(asked) == 3
    assert starts == {"2026-05-01T12:00:00Z"}
