"""A video from start to end, as `moodline analyze` does it."""

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moodline.errors import ClientError
from moodline.library._images import Picture, as_bgr
from moodline.library._rows import Row, Rows
from moodline.library._settings import settings_of
from moodline.services.analysis.analyze import STREAM_ID, AnalysisProgress, run_analysis
from moodline.services.analysis.faces import rows_of
from moodline.services.analysis.inputs import clips_of
from moodline.services.report import (
    TimelineDocument,
    plot_timeline,
    timeline_csv,
    timeline_document,
    timeline_json,
    write_output,
)
from moodline.services.report.document import analysis_document
from moodline.services.report.export import CSV_FIELDS, point_row
from moodline.services.report.faces import FACE_FIELDS, FaceRow, flat, require_faces_format, write_faces
from moodline.services.report.moments import iso, to_us
from moodline.services.report.outputs import Output, check_outputs, replacing
from moodline.services.report.tracks import TrackDocument, track_document
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import Emotions
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamStatus, parse_sample_fps
from moodline.shared.timeline import TimelineAnswer, TimelineQuery, Track, parse_resolution, timeline, track_list

if TYPE_CHECKING:
    import numpy.typing as npt

Progress = Callable[[float, float | None], None]
"""Told how many seconds of the video are in the timeline, and how many there are (None: unknown)."""

_TRACK_SINGLE = ("track", "first", "last", "position_s", "frames", "dominant", "ended")
_TRACK_FIELDS = (*_TRACK_SINGLE, *(f"{kind}_{emotion}" for kind in ("shares", "smoothed") for emotion in EMOTIONS))


def analyze(  # noqa: PLR0913  # one for each option
    source: "str | Path | npt.NDArray[np.uint8] | Iterable[Picture]",
    *,
    sample_fps: str | float | None = None,
    fps: str | float | None = None,
    color: str = "bgr",
    resolution: str | None = None,
    recorded_at: datetime | None = None,
    progress: bool | Progress = False,
    threads: int | None = None,
    model: str | None = None,
) -> "Result":
    """Analyse a video from start to end, with the result of `moodline analyze`. Blocks.

    Args:
        source: A path, `file://` or `synthetic://` URL; a folder or pattern of pictures, with `fps`; or pictures: uint8
            (N, H, W, 3), or an iterable of arrays (H, W, 3), paths and PIL images, with `fps`.
        sample_fps: Frames per second to analyse, or `all`; by default 5.
        fps: Of pictures: how many make a second.
        color: Order of the colours in arrays: `bgr` or `rgb`.
        resolution: Length of a point of the timeline, such as `1s` or `10s`; by default what fits.
        recorded_at: When it was recorded; without it, times count from 1970-01-01T00:00:00Z.
        progress: True draws a bar on standard error; or a function that is told how far it is.
        threads: For each of the two networks; by default one for each processor.
        model: Name of the classifier's model.

    Raises:
        SourceError: it cannot be read; `reason` and the message say why.
        InvalidStreamError, QueryError: an option cannot be used.
        ClientError: pictures without `fps`, or a package is missing.
    """
    settings = settings_of(threads, model)
    rate = settings.ingest.sample_fps if sample_fps is None else str(sample_fps)
    parse_sample_fps(rate)
    asked = parse_resolution(resolution) if resolution else None
    kept = None
    if not isinstance(source, str | Path):
        if fps is None:
            raise ClientError("pictures need fps: how many of them make a second, such as fps=25")
        kept = PictureFolder()
        _write_pictures(source, kept.path, color, settings)
        source = kept.path
    clips = clips_of([str(source)], "" if fps is None else str(fps))
    if len(clips) != 1:
        raise ClientError(f"{source} names {len(clips)} videos; analyse them one by one")
    clip = clips[0]
    if clip.folder is not None:
        settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"media_root": clip.folder})})
    spec = StreamSpec(
        stream_id=STREAM_ID,
        url=clip.url,
        sample_fps=rate,
        max_side_px=settings.ingest.max_side_px,
        recorded_at_us=0 if recorded_at is None else to_us(recorded_at.astimezone()),
    )
    with ExitStack() as stack:
        told = _told(progress, stack)
        analysis = stack.enter_context(run_analysis(settings, spec, on_progress=told))
        answer = timeline(analysis.store, STREAM_ID, spec.lane, TimelineQuery(resolution_s=asked))
        name = "pictures" if kept else clip.name
        document = _document(answer, name, spec, analysis.status)
        tracks = [track_document(track, spec.recorded_at_us) for track in _all_tracks(analysis.store)]
        parts = _Parts(spec, settings, analysis.status, list(analysis.frames()), clip.files, kept)
    return Result(document, tracks, parts)


class Result:
    """The result of an analysis.

    Attributes:
        document: The timeline as `moodline analyze --json` writes it.
        warning: Why the file was not read whole; empty: it was.
    """

    def __init__(self, document: TimelineDocument, tracks: Sequence[TrackDocument], parts: "_Parts") -> None:
        self.document = document
        self.warning = parts.status.detail or str(parts.status.reason or "")
        self._tracks = tracks
        self._parts = parts

    def __repr__(self) -> str:
        summary = self.document.summary
        return f"<Result of {self.document.stream}: {summary.sampled} frames, {summary.faces} faces, mostly {summary.dominant}>"

    @property
    def summary(self) -> dict[str, Any]:
        """The whole video as one point."""
        return self.document.summary.model_dump(mode="json")

    @cached_property
    def timeline(self) -> Rows:
        """One row for each stretch of time, with the columns of `moodline analyze --csv`."""
        rows = [dict(zip(CSV_FIELDS, point_row(point), strict=True)) for point in self.document.points]
        return Rows(CSV_FIELDS, rows)

    @cached_property
    def tracks(self) -> Rows:
        """One row for each face that was followed through the video."""
        return Rows(_TRACK_FIELDS, [_track_row(track) for track in self._tracks])

    @cached_property
    def frames(self) -> Rows:
        """One row for each face in each sampled frame, one for a frame without; the columns of `moodline analyze --faces`."""
        return Rows(FACE_FIELDS, [flat(row) for row in self._face_rows()])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the timeline as JSON; also write it, if a path is given."""
        text = timeline_json(self.document)
        if path is not None:
            write_output(Path(path), text)
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the timeline as CSV; also write it, if a path is given."""
        text = timeline_csv(self.document)
        if path is not None:
            write_output(Path(path), text)
        return text

    def to_faces(self, path: str | Path) -> None:
        """Write each face of each frame as the ending says: `.csv`, `.ndjson` or `.parquet`."""
        file_format = require_faces_format(Path(path))
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            write_faces(self._face_rows(), file, file_format)

    def plot(self, path: str | Path) -> None:
        """Draw the timeline as `.png`, `.svg` or `.pdf`."""
        plot_timeline(self.document, Path(path))

    def annotate(self, path: str | Path, *, progress: Callable[[float], None] | None = None) -> None:
        """Write the video with boxes, track numbers and leading emotions, and its sound, as `.mp4`, `.mkv`, `.mov` or `.webm`.

        Args:
            path: Where; a file that is there is replaced, but never the video itself.
            progress: Told how many seconds of the video are written.

        Raises:
            OutputError: it cannot be written.
            SourceError: the video cannot be read any more.
        """
        from moodline.services.analysis.results import annotate

        parts = self._parts
        check_outputs([Output("annotate", Path(path))], parts.files, force=True)

        def on_frame(at_s: Fraction) -> bool:
            if progress is not None:
                progress(float(at_s))
            return True

        annotate(parts.spec, parts.settings, parts.messages, Path(path), on_frame)

    def _face_rows(self) -> Iterable[FaceRow]:
        parts = self._parts
        return rows_of(parts.messages, parts.spec, parts.status, parts.settings.aggregator)


class PictureFolder:
    """A temporary folder that goes with the object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="moodline-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class _Parts:
    """The parts of a result; `kept` holds the pictures that were given as arrays."""

    def __init__(  # six parts
        self,
        spec: StreamSpec,
        settings: Settings,
        status: StreamStatus,
        messages: list[Emotions],
        files: tuple[Path, ...],
        kept: "PictureFolder | None",
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.status = status
        self.messages = messages
        self.files = files
        self.kept = kept


def _document(answer: TimelineAnswer, name: str, spec: StreamSpec, status: StreamStatus) -> TimelineDocument:
    document = timeline_document(answer, stream=name, lane=spec.lane, recorded_at_us=spec.recorded_at_us)
    return analysis_document(document, status)


def _all_tracks(store: Store) -> Iterator[Track]:
    """Yield a stream's tracks, as many as there are."""
    after = 0
    while page := track_list(store, STREAM_ID, after=after):
        yield from page
        after = page[-1].track_id


def _track_row(track: TrackDocument) -> Row:
    row: dict[str, Any] = {name: getattr(track, name) for name in _TRACK_SINGLE}
    row |= {"first": iso(track.first), "last": iso(track.last)}
    for kind in ("shares", "smoothed"):
        row |= {f"{kind}_{emotion}": getattr(track, kind)[emotion] for emotion in EMOTIONS}
    return row


def _write_pictures(pictures: Iterable[Picture], folder: Path, color: str, settings: Settings) -> None:
    """Write pictures without loss, since the workers read files."""
    import cv2

    if color not in ("bgr", "rgb"):
        raise ClientError(f"color is bgr or rgb, not {color!r}")
    number = -1
    for number, picture in enumerate(pictures):
        image = as_bgr(picture, color, settings)
        (folder / f"{number:09}.png").write_bytes(cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())
    if number < 0:
        raise ClientError("there are no pictures")


def _told(progress: bool | Progress, stack: ExitStack) -> Callable[[AnalysisProgress], None] | None:
    if progress is False:
        return None
    if progress is True:
        from rich.progress import Progress as Bar

        from moodline.services.report.outputs import shown

        bar = stack.enter_context(Bar(transient=True, console=_stderr(), disable=not sys.stderr.isatty()))
        task = bar.add_task(shown("moodline"), total=None)

        def draw(now: AnalysisProgress) -> None:
            bar.update(task, completed=now.media_us, total=now.duration_us, description=f"{now.frames} frames")

        return draw

    def tell(now: AnalysisProgress) -> None:
        progress(now.media_us / 1e6, None if now.duration_us is None else now.duration_us / 1e6)

    return tell


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
