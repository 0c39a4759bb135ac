"""`moodline analyze` as a user runs it: every clip, every output, and what happens when the input is bad."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MOODLINE = str(Path(sys.executable).parent / "moodline")


def moodline(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [MOODLINE, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False)


CLIPS = {
    "classroom.mp4": 3.0,
    "face-demographics-walking.mp4": 2.9,
    "face-leaves.mov": 6.4,
    "film-1915.mp4": 9.64,
    "head-pose-face-detection-male.mp4": 5.17,
    "man-expressions.mp4": 19.69,
    "stage-speech.mp4": 9.18,
    "webcam-portrait.mp4": 7.8,
    "webcam-short.mkv": None,
    "woman-speaking.mp4": 15.48,
}
LEAST_WITH_FACES = {"face-leaves.mov": 0.35, "man-expressions.mp4": 0.95, "webcam-portrait.mp4": 0.95, "woman-speaking.mp4": 0.95}
"""Share of the sampled frames in which the face is found."""


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_gives_a_complete_timeline_with_at_least_the_faces_that_yunet_finds(
    material: Path, clips: Path, tmp_path: Path, name: str
) -> None:
    done = moodline("analyze", clips / name, "--json", "t.json", "--csv", "t.csv", "--plot", "t.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "t.json").read_text())
    points, summary = document["points"], document["summary"]
    assert all(point["final"] for point in points)
    assert sum(point["sampled"] for point in points) == summary["sampled"] == summary["classified"]
    assert [point["position_s"] for point in points] == [float(number) for number in range(len(points))]
    duration_s = CLIPS[name]
    if duration_s is not None:
        assert len(points) == -(-duration_s // 1)
        assert abs(summary["sampled"] - duration_s * 5) <= 2
    assert summary["frames_with_faces"] >= LEAST_WITH_FACES.get(name, 0.0) * summary["sampled"]
    for point in points:
        if point["faces"]:
            assert abs(sum(point["smoothed"].values()) - 1) < 1e-4
            assert point["empty"] is None
        else:
            assert point["smoothed"] is None
            assert point["empty"] in (("unreadable",) if point["unreadable"] else ("no_face", "not_sampled"))
    yunet = {
        "MOODLINE_DETECTOR_MODEL": str(material / "models/face_detection_yunet_n_640.onnx"),
        "MOODLINE_DETECTOR_SIDE_PX": "320",
    }
    assert moodline("analyze", clips / name, "--json", "yunet.json", cwd=tmp_path, **yunet).returncode == 0
    assert summary["faces"] >= 0.95 * json.loads((tmp_path / "yunet.json").read_text())["summary"]["faces"]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert len(rows) == len(points)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert str(summary["sampled"]) in done.stderr


def test_the_same_file_gives_the_same_document_twice(clips: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert moodline("analyze", clips / "classroom.mp4", "--sample-fps", "all", "--json", name, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_annotate_keeps_every_frame_and_its_time(clips: Path, tmp_path: Path) -> None:
    source = clips / "webcam-portrait.mp4"
    done = moodline("analyze", source, "--annotate", "out.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    times = [presentation_times(path) for path in (source, tmp_path / "out.mp4")]
    assert len(times[0]) == len(times[1])
    assert max(abs(a - b) for a, b in zip(*times, strict=True)) < 1e-3
    assert differs_inside(source, tmp_path / "out.mp4") > 20, "nothing was drawn"


def presentation_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        frames = [frame.time for frame in container.decode(video=0)]
    return [time - frames[0] for time in frames if time is not None]


def differs_inside(first: Path, second: Path) -> float:
    """Return the largest difference of a pixel between the two files' 50th frames."""
    images = []
    for path in (first, second):
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number == 50:
                    images.append(frame.to_ndarray(format="gray").astype(int))
                    break
    return float(abs(images[0] - images[1]).max())


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_bad_input_is_one_clear_line(tmp_path: Path, clips: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    cases = {
        "nowhere.mp4": tmp_path / "nowhere.mp4",
        "empty": write(tmp_path / "empty.mp4", b""),
        "text": write(tmp_path / "text.mp4", b"this is not a video\n" * 100),
        "empty folder": folder,
        "half a header": write(tmp_path / "head.mp4", (clips / "classroom.mp4").read_bytes()[:200]),
    }
    for name, path in cases.items():
        done = moodline("analyze", path, cwd=tmp_path)
        assert done.returncode == 1, name
        assert done.stderr.startswith("moodline: "), (name, done.stderr)
        assert "Traceback" not in done.stderr, name
        assert len(done.stderr.strip().splitlines()) == 1, (name, done.stderr)


def test_a_truncated_file_is_analysed_as_far_as_it_goes(clips: Path, tmp_path: Path) -> None:
    content = (clips / "webcam-short.mkv").read_bytes()
    path = write(tmp_path / "cut.mkv", content[: len(content) // 2])
    done = moodline("analyze", path, "--json", "t.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["sampled"] > 3


def test_unusable_options_say_so(clips: Path, tmp_path: Path) -> None:
    done = moodline("analyze", clips / "classroom.mp4", "--sample-fps", "fast", cwd=tmp_path)
    assert done.returncode == 1
    assert "sample_fps" in done.stderr
    done = moodline("detector", cwd=tmp_path)
    assert done.returncode == 1
    assert "MOODLINE_BUS_URL" in done.stderr
