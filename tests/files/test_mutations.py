"""Mutated files: whatever is in them, reading ends, with an answer, and takes no more memory than it may."""

import random
import threading
from pathlib import Path

import pytest

from moodline.services.ingest.file.process import FileProcessError, FileProcesses
from moodline.services.ingest.file.samples import Wanted
from moodline.shared.errors import SourceError
from moodline.shared.settings import IngestSettings
from tests.files.recipes import ffmpeg

MUTATIONS = 308
SEED = 20_260_701
RECIPES = {
    "h264.mp4": ("-preset", "ultrafast", "-g", "10"),
    "h264.ts": ("-preset", "ultrafast", "-g", "10"),
    "h264.mkv": ("-preset", "ultrafast", "-g", "10"),
    "mpeg4.avi": ("-c:v", "mpeg4"),
    "mpeg2.mpg": ("-c:v", "mpeg2video"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    "fragmented.mp4": ("-preset", "ultrafast", "-movflags", "frag_keyframe+empty_moov"),
    "flv.flv": ("-preset", "ultrafast"),
    "picture.png": ("-frames:v", "1"),
    "picture.jpg": ("-frames:v", "1"),
    "moving.gif": (),
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    for name, options in RECIPES.items():
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=1", *options, folder / name)
    return [folder / name for name in RECIPES]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with something done to them that happens to files, or that somebody does on purpose."""
    out = bytearray(data)
    kind = chance.randrange(7)
    at = chance.randrange(len(out))
    if kind == 0:
        del out[at:]
    elif kind == 1:
        for _ in range(chance.choice((1, 5, 50, 500))):
            out[chance.randrange(len(out))] = chance.randrange(256)
    elif kind == 2:
        out[at : at + chance.randrange(1, 400)] = b""
    elif kind == 3:
        out[at:at] = chance.randbytes(chance.randrange(1, 400))
    elif kind == 4:
        out[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
    elif kind == 5:
        other = chance.randrange(len(out))
        out[at : at + 300] = out[other : other + 300]
    else:
        # Headers above all.
        for _ in range(8):
            out[chance.randrange(min(600, len(out)))] ^= 1 << chance.randrange(8)
    return bytes(out)


@pytest.mark.slow
def test_every_mutation_is_answered(seeds: list[Path], tmp_path: Path) -> None:
    chance, files = random.Random(SEED), FileProcesses()
    outcomes: dict[str, int] = {}
    settings = IngestSettings(media_root=tmp_path, file_memory_bytes=512 << 20, max_pixels=4_000_000)
    for number in range(MUTATIONS):
        seed = seeds[number % len(seeds)]
        path = tmp_path / f"m{number}{seed.suffix}"
        path.write_bytes(mutated(seed.read_bytes(), chance))
        try:
            samples = files.open(path.as_uri(), settings, Wanted("5", 640, 90), threading.Event())
        except SourceError as error:
            outcome = str(error.reason)
            assert len(str(error)) > 15  # noqa: PT017  # a sentence
        except FileProcessError as death:
            outcome = f"process: {death.reason}"
        else:
            at = [one.at_us for one in samples.frames() if one]
            assert at == sorted(at)
            assert samples.end_us >= 0
            assert samples.ending.reason is None or samples.ending.detail
            outcome = str(samples.ending.reason or "whole")
            samples.close()
        path.unlink()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    files.close()
    assert sum(outcomes.values()) == MUTATIONS
    # A defect of Moodline would have raised; an end of a process without cause would be one too.
    assert "process: internal" not in outcomes
    assert outcomes.get("whole", 0) < MUTATIONS // 2
