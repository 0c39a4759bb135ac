"""What may be given to `analyze`, and what is said of the rest."""

import os
from pathlib import Path

import pytest

from moodline.services.analysis.inputs import clips_of
from moodline.shared.errors import InvalidStreamError, SourceError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def names(*words: str, fps: str = "") -> list[str]:
    return [clip.name for clip in clips_of(words, fps)]


def refused(word: str, fps: str = "") -> str:
    with pytest.raises(SourceError) as caught:
        clips_of([word], fps)
    return str(caught.value)


def test_files_by_path_and_url(folder: Path) -> None:
    touch("a b#?%.mp4", "[x].mp4", "$y.mp4")
    assert names("a b#?%.mp4", (folder / "[x].mp4").as_uri(), "./$y.mp4") == ["a b#?%.mp4", "[x].mp4", "$y.mp4"]
    (clip,) = clips_of([f"file://localhost{folder}/%5Bx%5D.mp4"])
    assert clip.files == (folder / "[x].mp4",)


def test_a_name_that_is_no_text(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    touch(name)
    (clip,) = clips_of([name])
    assert clip.name == "caf\ufffd.mp4"
    assert clip.url.endswith("caf%E9.mp4")


def test_folders_and_patterns_are_their_videos() -> None:
    touch("d/b10.mp4", "d/b2.mkv", "d/notes.txt", "d/.hidden.mp4", "d/p.png")
    assert names("d") == ["b2.mkv", "b10.mp4"]
    assert names("d/*.m*") == ["b2.mkv", "b10.mp4"]


def test_pictures_with_a_rate_are_one_video() -> None:
    touch("d/i1.png", "d/i2.png", "d/i10.png", "e/x.jpg")
    for words in (["d"], ["d/i%d.png"], ["d/*.png"], ["d/i1.png", "d/i2.png", "d/i10.png"]):
        (clip,) = clips_of(words, "25")
        assert [file.name for file in clip.files] == ["i1.png", "i2.png", "i10.png"]
        assert clip.url.startswith("sequence:///")
        assert clip.url.endswith("?fps=25&name=i1.png&name=i2.png&name=i10.png")
    assert names("d", "e", fps="2") == ["d", "e"]
    assert names("d/i%02d.png", fps="2") == ["d"]
    assert names("d/i1.png") == ["i1.png"], "without a rate each picture is a file of its own"


@pytest.mark.parametrize("fps", ["0", "x", "all", "-3", "1000"])
def test_a_rate_that_cannot_be(fps: str) -> None:
    touch("i1.png")
    with pytest.raises(InvalidStreamError, match="how many pictures make a second"):
        clips_of(["i1.png"], fps)


def test_the_true_cause_in_one_sentence(folder: Path) -> None:
    touch("d/i1.png", "empty/notes.txt")
    os.mkfifo("pipe")
    said = {
        "rtsp://user:secret@host/x": "streams add",
        "https://host/v.mp4": "streams add",
        "RTSP://host/x": "streams add",
        "file://host/x.mp4": "has no host",
        "ftp://host/x": "ftp:// is not read here",
        "nowhere.mp4": "there is no such file",
        f"file://{folder}/nowhere.mp4": "there is no such file",
        "i%03d.png": "--fps 25",
        "d": "--fps 25",
        "empty": "neither a video nor a picture",
        "*.avi": "no file matches",
        "-": "is a pipe",
        "pipe": "is a pipe",
        "/dev/zero": "is a pipe or a device",
        "d/i1.png/x.mp4": "there is no such file",
    }
    for word, part in said.items():
        sentence = refused(word)
        assert part in sentence, (word, sentence)
        assert "secret" not in sentence
        assert "\n" not in sentence
    assert "no picture matches" in refused("d/j%d.png", "25")
    assert "there is no folder" in refused("nowhere/j%d.png", "25")
