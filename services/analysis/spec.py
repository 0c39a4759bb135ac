"""The stream that an analysis of a clip is: for the command line and for the library."""

from datetime import UTC, datetime
from pathlib import Path

from moodline.services.analysis.analyze import STREAM_ID
from moodline.services.analysis.inputs import Clip
from moodline.services.report.moments import to_us
from moodline.shared.errors import InvalidStreamError, QueryError
from moodline.shared.settings import Settings
from moodline.shared.streams import StreamSpec, parse_sample_fps
from moodline.shared.timeline.times import parse_time


def spec_of_clip(clip: Clip, settings: Settings, sample_fps: str = "", recorded_at: str = "") -> tuple[StreamSpec, Settings]:
    """Return the stream of a clip, and settings whose media root holds it.

    Args:
        clip: What is analysed.
        settings: For what is not given.
        sample_fps: Frames per second to analyse, or `all`; empty: as the settings say.
        recorded_at: When it was recorded: ISO 8601, seconds since 1970, or relative to now; `auto`: as the file itself says;
            empty: times count from 1970-01-01T00:00:00Z.

    Raises:
        InvalidStreamError: an option cannot be used.
    """
    rate = sample_fps or settings.ingest.sample_fps
    parse_sample_fps(rate)
    settings = with_media_root(settings, clip.folder)
    spec = StreamSpec(
        stream_id=STREAM_ID,
        url=clip.url,
        sample_fps=rate,
        max_side_px=settings.ingest.max_side_px,
        recorded_at_us=_recorded_at_us(clip, recorded_at, settings),
    )
    return spec, settings


def with_media_root(settings: Settings, folder: Path | None) -> Settings:
    """Return settings by which the files of a folder may be read; None: no files are read."""
    if folder is None:
        return settings
    return settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"media_root": folder})})


def _recorded_at_us(clip: Clip, text: str, settings: Settings) -> int:
    if text != "auto":
        return _parse_recorded_at(text)
    from moodline.services.ingest.file.probe import probe_file

    found = probe_file(clip.files[0], settings.ingest, settings.uploads.probe_timeout_s) if len(clip.files) == 1 else None
    if found is None or found.created_at_us is None:
        raise InvalidStreamError(
            "recorded_at",
            f"{clip.name} does not say when it was recorded (creation_time); give --recorded-at a time, or leave it out",
        )
    return found.created_at_us


def _parse_recorded_at(text: str) -> int:
    if not text:
        return 0
    try:
        return parse_time(text, to_us(datetime.now(UTC).replace(microsecond=0)), "recorded_at")
    except QueryError:
        raise InvalidStreamError(
            "recorded_at",
            f"recorded_at {text!r} is not a time; write ISO 8601 like 2026-05-01T12:00:00Z, seconds since 1970, or now-1h",
        ) from None
