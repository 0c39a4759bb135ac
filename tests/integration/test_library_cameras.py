"""Cameras in this process: the library's stream and `analyze --seconds`, against simulated cameras."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moodline
from moodline.services.cli.app import app
from moodline.services.simulator import CameraSimulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def camera() -> Iterator[CameraSimulator]:
    with CameraSimulator(None, paths=1, size="640x360", fps=10) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOODLINE_DATA_DIR", str(tmp_path / "data"))


def test_a_camera_gives_frames_with_faces_that_are_followed(camera: CameraSimulator) -> None:
    frames = list(moodline.stream(camera.url("cam0"), sample_fps=5, seconds=3))
    assert 5 <= len(frames) <= 16
    assert all(frame.position_s is None for frame in frames)
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)
    seen = [face for frame in frames for face in frame.faces]
    assert seen
    assert all(face.box.right <= 640 and face.box.bottom <= 360 for face in seen)
    assert {face.track for face in seen} <= set(range(1, 6))
    assert any(face.smoothed for face in seen)


def test_analyze_looks_at_a_camera_for_some_seconds(camera: CameraSimulator, tmp_path: Path) -> None:
    url = camera.url("cam0").replace("rtsp://", "rtsp://viewer:s3cr3t@")
    done = CliRunner().invoke(app, ["analyze", url, "--seconds", "2", "--json", "t.json", "--faces", "f.csv", "--plot", "t.png"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "s3cr3t" not in done.output
    document = json.loads((tmp_path / "t.json").read_text())
    rows = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert document["lane"] == "live"
    assert "s3cr3t" not in document["stream"]
    assert document["summary"]["sampled"] >= len({row["time"] for row in rows}) >= 3
    assert {row["position_s"] for row in rows} == {""}


def test_a_video_of_a_camera_is_refused_before_it_is_looked_at(camera: CameraSimulator) -> None:
    done = CliRunner().invoke(app, ["analyze", camera.url("cam0"), "--seconds", "1", "--annotate", "o.mp4"])
    assert "a camera cannot be" in str(done.exception)
