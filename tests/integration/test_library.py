"""The library: its page runs as it stands, and its answers are those of the command line."""

import contextlib
import io
import json
import re
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import moodline
from moodline.errors import ClientError
from moodline.services.cli.app import app
from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import ImageError, InvalidStreamError, OutputError, SourceError
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
        (np.zeros((8, 8, 3), np.uint16), ">> 8"),
        (np.zeros((8, 8, 3)), "255"),
        (np.zeros((8, 8, 4), np.uint8), ":3"),
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.broadcast_to(np.uint8(0), (70_000, 70_000, 3)), "MOODLINE_INGEST_MAX_PIXELS"),
        (b"no picture", "the bytes"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros(8, np.uint8)], "picture 2: .*shape"),
        (np.zeros((8, 8, 3), np.uint8).tolist(), "asarray"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_says_why(picture: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        moodline.detect_emotions(picture)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "I;16"])
def test_pil_images_of_every_mode(photo: Path, mode: str) -> None:
    from PIL import Image

    image = Image.open(photo)
    if mode == "I;16":
        made = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        made = image.convert("RGB").convert(mode)
    assert [face.dominant for face in moodline.detect_emotions(made)] == ["happy"]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_images_without_a_range_are_refused(photo: Path, mode: str) -> None:
    from PIL import Image

    with pytest.raises(ImageError, match=f"mode {mode} does not say which value is white"):
        moodline.detect_emotions(Image.open(photo).convert("L").convert(mode))


def test_every_way_to_give_a_picture_is_the_same(photo: Path) -> None:
    class Named:
        def __fspath__(self) -> str:
            return str(photo)

    image, content = cv2.imread(str(photo)), photo.read_bytes()
    faces = moodline.detect_emotions(photo)
    fixed = image.copy()
    fixed.setflags(write=False)
    given = [
        str(photo),
        Named(),
        photo.as_uri(),
        content,
        bytearray(content),
        np.asfortranarray(image),
        fixed,
    ]
    assert moodline.detect_emotions(given) == [faces] * len(given)
    assert moodline.detect_emotions(one for one in given) == [faces] * len(given)
    assert moodline.detect_emotions(io.BytesIO(content)) == faces
    assert moodline.detect_emotions(image[:, :, ::-1], color="RGB") == faces


@pytest.mark.parametrize(
    "option", [{"threads": -1}, {"threads": "2"}, {"threads": 10**9}, {"threads": True}, {"color": None}, {"model": 3}]
)
def test_an_option_that_cannot_be_used_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match=next(iter(option))):
        moodline.detect_emotions("photo.png", **option)


def test_a_video_that_is_none_says_why() -> None:
    grey = np.zeros((2, 64, 64), np.uint8)
    assert moodline.analyze(grey, fps=2, sample_fps="all").summary["sampled"] == 2
    wrong: list[tuple[Any, str]] = [
        (grey[0], "detect_emotions"), (None, "NoneType"), ([grey[0], grey[0, :32]], "picture 2: .*one size"),
        (grey / 255, "uint8"),
    ]  # fmt: skip
    for given, said in wrong:
        with pytest.raises(ImageError, match=said):
            moodline.analyze(given, fps=2)
    for source, said in (("", "empty"), ("rtsp://user:secret@host/x", "moodline.stream")):
        with pytest.raises(SourceError, match=said) as caught:
            moodline.analyze(source)
        assert "secret" not in str(caught.value)
    for fps in (0, -1, "abc", float("nan")):
        with pytest.raises(InvalidStreamError, match="fps"):
            moodline.analyze(grey, fps=fps)
    with pytest.raises(InvalidStreamError, match="recorded_at"):
        moodline.analyze("clip.mp4", recorded_at="soon")
    with pytest.raises(InvalidStreamError, match="transport"):
        moodline.stream("clip.mp4", transport="http")
    for what in ({"seconds": "3"}, {"seconds": 0}, {"first_frame_s": -1}):
        with pytest.raises(ClientError, match=next(iter(what))):
            moodline.stream("clip.mp4", **what)  # type: ignore[arg-type]


def test_rows_are_the_same_as_frames_tables_and_files(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    image = cv2.imread("photo.png")
    result = moodline.analyze([image, image, image * 0], fps=3, sample_fps="all")
    for name in ("rows.csv", "rows.ndjson", "rows.parquet"):
        result.to_faces(name)
    assert (folder / "rows.csv").read_bytes().decode() == result.frames.to_csv()
    assert [json.loads(line) for line in (folder / "rows.ndjson").read_text().splitlines()] == list(result.frames)
    assert parquet.read_table("rows.parquet").equals(result.frames.to_arrow())
    assert [(row["frame"], row["track"], row["readable"]) for row in result.frames] == [
        (0, 1, True),
        (1, 1, True),
        (2, None, None),
    ]
    frame = result.frames.to_pandas()
    kinds = {"frame": "Int64", "track": "Int64", "readable": "boolean", "x1": "float64", "raw_sad": "float64"}
    assert {name: str(frame[name].dtype) for name in kinds} == kinds
    assert str(frame["time"].dt.tz) == "UTC"
    assert result.timeline.to_csv() == result.to_csv()
    assert result.timeline[0]["final"] is True


@pytest.mark.parametrize("name", ["to_json", "to_csv", "annotate"])
def test_no_result_is_written_over_the_video(name: str) -> None:
    result = moodline.analyze("clip.mp4", sample_fps=1)
    before = Path("clip.mp4").read_bytes()
    with pytest.raises(OutputError, match="never written over"):
        getattr(result, name)("clip.mp4")
    assert Path("clip.mp4").read_bytes() == before
    with pytest.raises(OutputError, match=r"\.mp4, \.mkv"):
        result.annotate("boxes.gif")


def test_what_cannot_be_read_says_why(folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    for call in (moodline.detect_emotions, moodline.analyze, lambda name: list(moodline.stream(name))):
        for name in ("nowhere.png", "text.mp4"):
            with pytest.raises(SourceError):
                call(name)
    with pytest.raises(SourceError, match=r"picture 2: nowhere\.png: "):
        moodline.detect_emotions(["photo.png", "nowhere.png"])
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
