"""The library: its page runs as it stands, and its answers are those of the command line."""

import contextlib
import io
import re
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import moodline
from moodline.errors import ClientError
from moodline.services.cli.app import app
from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.settings import IngestSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n(\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)
ROW = re.compile(r"^\| (?:fer|DeepFace|py-feat|Roboflow): .* \| `(?P<code>.*)` \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in portrait, as a picture, and a clip of it beside it."""
    folder = tmp_path_factory.mktemp("photo")
    with closing(open_source("synthetic://astronaut?seconds=1&fps=5&faces=1&seed=1", IngestSettings())) as source:
        image = next(source.frames()).to_bgr()
    cv2.imwrite(str(folder / "photo.png"), image)
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (image.shape[1], image.shape[0]))
    for _ in range(20):
        writer.write(image)
    writer.release()
    return folder / "photo.png"


@pytest.fixture(autouse=True)
def folder(photo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(photo.parent)
    monkeypatch.setenv("MOODLINE_DATA_DIR", str(photo.parent / "data"))
    return photo.parent


def test_the_page_runs_as_it_stands(repo: Path) -> None:
    page = (repo / "docs/library.md").read_text()
    names: dict[str, object] = {}
    examples = list(EXAMPLE.finditer(page))
    assert len(examples) >= 6
    for example in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example["code"], names)
        assert printed.getvalue() == (example["said"] or ""), example["code"]
    rows = ROW.findall(page)
    assert len(rows) >= 23
    for row in rows:
        exec(row, names)
    assert Path("annotated.mp4").stat().st_size > 1000
    assert Path("faces.parquet").exists()


def test_the_results_are_those_of_the_command_line() -> None:
    arguments = ["analyze", "clip.mp4", "--json", "cli.json", "--csv", "cli.csv", "--faces", "cli-faces.csv", "--force"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = moodline.analyze("clip.mp4")
    assert result.to_json() == Path("cli.json").read_text()
    assert result.to_csv() == Path("cli.csv").read_bytes().decode()
    result.to_faces("lib-faces.csv")
    assert Path("lib-faces.csv").read_bytes() == Path("cli-faces.csv").read_bytes()
    assert [row["frame"] for row in result.frames] == list(range(10))
    live = list(moodline.stream("clip.mp4"))
    assert [face.smoothed for frame in live for face in frame.faces] == [
        {name.removeprefix("smoothed_"): row[name] for name in row if name.startswith("smoothed_")} for row in result.frames
    ]


def test_a_picture_gives_what_analyze_gives() -> None:
    (face,) = moodline.detect_emotions("photo.png")
    (row,) = moodline.analyze("photo.png").frames
    assert (row["x1"], row["y1"], row["x2"], row["y2"]) == face.box
    assert (row["score"], row["quality"], row["readable"]) == (face.score, face.quality, face.readable)
    assert {name: row[f"raw_{name}"] for name in face.emotions} == face.emotions
    assert sum(face.emotions.values()) == pytest.approx(1, abs=1e-5)


def test_a_call_may_come_from_any_thread() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(moodline.detect_emotions("photo.png"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [moodline.detect_emotions("photo.png")] * 4
    assert moodline.detect_emotions("photo.png", threads=1) == found[0]


def test_grey_and_pil(photo: Path) -> None:
    from PIL import Image

    grey = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
    assert len(moodline.detect_emotions(grey)) == 1
    assert moodline.detect_emotions(Image.open(photo)) == moodline.detect_emotions(photo)
    stack = np.stack([cv2.imread(str(photo))] * 2)
    assert [len(faces) for faces in moodline.detect_emotions(stack)] == [1, 1]
    assert moodline.detect_emotions([]) == []
    assert moodline.detect_emotions(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8, 4), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.zeros(8, np.uint8), "shape"),
        (42, "an array, a path or a PIL image"),
    ],
)
def test_what_is_no_picture_says_why(picture: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        moodline.detect_emotions(picture)


def test_what_cannot_be_read_says_why(folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    for call in (moodline.detect_emotions, moodline.analyze, lambda name: list(moodline.stream(name))):
        for name in ("nowhere.png", "text.mp4"):
            with pytest.raises(SourceError):
                call(name)
    with pytest.raises(ClientError, match="fps"):
        moodline.analyze([np.zeros((8, 8, 3), np.uint8)])
    with pytest.raises(ClientError, match="no pictures"):
        moodline.analyze([], fps=1)
    with pytest.raises(ClientError, match="bgr or rgb"):
        moodline.detect_emotions("photo.png", color="hsv")


def test_a_camera_that_is_not_there_says_so() -> None:
    with pytest.raises(SourceError) as caught:
        next(moodline.stream("rtsp://user:secret@127.0.0.1:9/x", first_frame_s=1.0))
    assert "no frame came within 1 s" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_stream_can_be_left_early() -> None:
    before = threading.active_count()
    with moodline.stream("synthetic://astronaut?seconds=600&fps=25&faces=1&seed=1") as frames:
        assert next(frames).number == 0
    assert threading.active_count() <= before


def test_import_is_light() -> None:
    heavy = ["numpy", "cv2", "av", "openvino", "httpx", "pydantic", "matplotlib", "pandas", "pyarrow", "typer"]
    code = f"import sys, moodline; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    absent = "import sys; sys.modules |= {'cv2': None}; import moodline; moodline.Client; moodline.detect_emotions('x.png')"
    done = subprocess.run([sys.executable, "-c", absent], capture_output=True, text=True, check=False)
    assert "pip install 'moodline[embedded]'" in done.stderr
