"""Files are decoded in processes of their own: a crash costs one stream, memory is limited, no secret is in their environment."""

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from moodline.services.ingest.file.process import FileProcessError, FileProcesses, ProcessSamples, death_of
from moodline.services.ingest.file.samples import LocalSamples, Wanted
from moodline.services.ingest.process.host import host_environment
from moodline.shared.errors import SourceError
from moodline.shared.settings import IngestSettings
from tests.files.recipes import ffmpeg, opened
from tests.support.make_media import make_video, png_of_nothing

ALL = Wanted("all", 1280, 90)


@pytest.fixture(scope="module")
def files():
    processes = FileProcesses()
    yield processes
    processes.close()


def open_in_process(files: FileProcesses, path: Path, wanted: Wanted = ALL, **settings: object) -> ProcessSamples:
    chosen = IngestSettings.model_validate({"media_root": path.parent, **settings})
    return files.open(path.as_uri(), chosen, wanted, threading.Event())


def test_a_process_gives_what_this_one_would(files: FileProcesses, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(30))
    there, here = open_in_process(files, path), LocalSamples(opened(path), ALL)
    assert there.info == here.info
    assert [one for one in there.frames() if one] == [one for one in here.frames() if one]
    assert (there.end_us, there.seq, there.decoded, there.ending) == (here.end_us, here.seq, here.decoded, here.ending)
    there.close()


def test_a_file_goes_on_where_its_timeline_stood(files: FileProcesses, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", range(30))
    found = open_in_process(files, path, Wanted("5", 1280, 90, first_seq=2, dropped=(3,)))
    samples = [one for one in found.frames() if one]
    assert [one.seq for one in samples] == [2, 3, 4, 5]
    assert [bool(one.jpeg) for one in samples] == [True, False, True, True]
    found.close()


def test_a_refusal_keeps_its_reason(files: FileProcesses, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match="empty") as caught:
        open_in_process(files, tmp_path / "a.mp4")
    assert caught.value.reason == "empty"


def test_a_dead_process_is_told(files: FileProcesses, tmp_path: Path) -> None:
    # More than the socket holds, so that the process still runs.
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x480:d=8", "-preset", "ultrafast", tmp_path / "a.mp4")
    found = open_in_process(files, tmp_path / "a.mp4")
    pid = found._link._fate.pid
    assert pid is not None
    os.kill(pid, signal.SIGSEGV)
    with pytest.raises(FileProcessError, match="crashes its decoder"):
        list(found.frames())
    found.close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(11, "corrupt"), (6, "corrupt"), (77 << 8, "too_large"), (9, "internal"), (0, "internal"), (None, "internal")],
)
def test_deaths(status: int | None, reason: str) -> None:
    assert death_of(status).reason == reason


def test_memory_is_limited(files: FileProcesses, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_of_nothing(12_000, 8000))
    with pytest.raises((SourceError, FileProcessError)) as caught:  # noqa: SIM117  # at opening or at reading
        with closing(
            open_in_process(files, tmp_path / "large.png", file_memory_bytes=256 << 20, max_pixels=100_000_000)
        ) as found:
            list(found.frames())
    assert caught.value.reason == "too_large"
    assert "MEMORY" in str(caught.value) or "memory" in str(caught.value)


def test_no_secret_is_in_the_environment(files: FileProcesses, tmp_path: Path) -> None:
    kept = host_environment(
        {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "canary", "MOODLINE_API_KEY": "canary", "DATABASE_URL": "canary", "LC_ALL": "C"}
    )
    assert "canary" not in kept.values()
    assert {"PATH", "LC_ALL"} <= set(kept)


def test_a_process_ends_when_nobody_wants_it(files: FileProcesses, tmp_path: Path) -> None:
    found = open_in_process(files, make_video(tmp_path / "a.mp4", range(45)))
    fate = found._link._fate
    found.close()
    assert fate.wait_ended(5.0)


def test_a_reader_that_is_told_to_stop_does_not_wait(files: FileProcesses, tmp_path: Path) -> None:
    path, stop = make_video(tmp_path / "a.mp4", range(45)), threading.Event()
    found = files.open(path.as_uri(), IngestSettings(media_root=tmp_path), ALL, stop)
    stop.set()
    started_s = time.monotonic()
    assert next(found.frames()) is None
    assert time.monotonic() - started_s < 5
    found.close()
