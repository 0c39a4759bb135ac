"""Undisturbed reference timelines: one embedded run of the same content, with the same settings."""

from pathlib import Path

from moodline.services.analysis.analyze import run_analysis
from moodline.shared.settings import ClassifierSettings, DetectorSettings, IngestSettings, Settings
from moodline.shared.store.base import dump
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline import TIERS_S

RECORDED_AT_US = 1_750_000_000_000_000
"""A fixed time on the timeline, so that two runs can be compared byte for byte."""


def reference_settings(media_root: Path) -> Settings:
    return Settings(
        ingest=IngestSettings(media_root=media_root),
        detector=DetectorSettings(threads=1),
        classifier=ClassifierSettings(threads=1),
    )


def clip_spec(stream_id: str, path: Path, sample_fps: str = "5") -> StreamSpec:
    return StreamSpec(stream_id=stream_id, url=path.as_uri(), sample_fps=sample_fps, recorded_at_us=RECORDED_AT_US)


def synthetic_spec(stream_id: str, seconds: int, seed: int, sample_fps: str = "25") -> StreamSpec:
    url = f"synthetic://astronaut?seconds={seconds}&fps=25&faces=2&seed={seed}"
    return StreamSpec(stream_id=stream_id, url=url, sample_fps=sample_fps, recorded_at_us=RECORDED_AT_US)


def reference_dump(media_root: Path, spec: StreamSpec) -> bytes:
    """Return the canonical bytes of the timeline of one undisturbed embedded run."""
    with run_analysis(reference_settings(media_root), spec) as analysis:
        return dump(analysis.store, spec.stream_id, TIERS_S)
