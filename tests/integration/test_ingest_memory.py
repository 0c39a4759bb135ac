"""Reading leaves nothing behind that only the garbage collector could free: frames are large, and it seldom runs."""

import gc
from pathlib import Path

from moodline.services.ingest.file.open import open_source
from moodline.shared.settings import IngestSettings


def test_frames_are_freed_without_the_garbage_collector(clips: Path) -> None:
    source = open_source((clips / "classroom.mp4").as_uri(), IngestSettings(media_root=clips))
    gc.collect()
    gc.disable()
    try:
        frames = sum(frame.to_bgr().shape == (270, 480, 3) for frame in source.frames())
        left = gc.collect()
    finally:
        gc.enable()
        source.close()
    assert frames == 45
    assert left < frames, "every frame leaves a reference cycle behind"
