"""A video from start to end, as `moodline analyze` does it."""

import os
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
from moodline.library._pictures import Picture, as_bgr, color_of, named_in_errors, pictures_of, require_not_a_camera
from moodline.library._rows import Row, Rows
from moodline.library._settings import settings_of
from moodline.services.analysis.analyze import STREAM_ID, AnalysisProgress, run_analysis
from moodline.services.analysis.faces import rows_of
from moodline.services.analysis.inputs import clips_of
from moodline.services.analysis.results import Results, warning_of
from moodline.services.analysis.spec import spec_of_clip
from moodline.services.report import TimelineDocument, plot_timeline, timeline_csv, timeline_json, write_output
from moodline.services.report.export import timeline_rows
from moodline.services.report.faces import FACE_FIELDS, FaceRow, flat, require_faces_format, write_faces
from moodline.services.report.moments import iso
from moodline.services.report.outputs import ANNOTATED_SUFFIXES, Output, check_outputs, replacing, shown
from moodline.services.report.tracks import TrackDocument, track_document
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import ImageError, OutputError
from moodline.shared.messages import Emotions
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline import TimelineQuery, Track, parse_resolution, track_list

if TYPE_CHECKING:
    import numpy.typing as npt

Progress = Callable[[float, float | None], None]
"""A function that is told how many seconds of the video are in the timeline, and how many there are (None: unknown)."""

_TRACK_SINGLE = ("track", "first", "last", "position_s", "frames", "dominant", "ended")
_TRACK_FIELDS = (*_TRACK_SINGLE, *(f"{kind}_{emotion}" for kind in ("shares", "smoothed") for emotion in EMOTIONS))


def analyze(  # noqa: PLR0913  # one for each option
    source: "str | os.PathLike[str] | npt.NDArray[np.uint8] | Iterable[Picture]",
    *,
    sample_fps: str | float | None = None,
    fps: str | float | None = None,
    color: str = "bgr",
    resolution: str | None = None,
    recorded_at: datetime | str | None = None,
    progress: bool | Progress = False,
    threads: int | None = None,
    model: str | None = None,
) -> "Result":
    """Analyse a video from start to end, with the result of `moodline analyze`. Blocks.

    Args:
        source: A path, `file://` or `synthetic://` URL; a folder or pattern of pictures, with `fps`; or pictures: uint8
            (N, H, W, 3) or (N, H, W), or an iterable of what `detect_emotions` takes, all of one size, with `fps`.
        sample_fps: Frames per second to analyse, or `all`; by default 5.
        fps: Of pictures: how many make a second.
        color: Order of the colours in arrays: `bgr` or `rgb`.
        resolution: Length of a point of the timeline, such as `1s` or `10s`; by default what fits.
        recorded_at: When it was recorded: a time, a text such as `2026-05-01T12:00:00Z`, or `auto`: as the file itself says.
            Without it, times count from 1970-01-01T00:00:00Z.
        progress: True draws a bar on standard error; or a function that is told how far it is.
        threads: For each of the two networks, 1 to 256; by default one for each processor.
        model: Name of the classifier's model.

    Raises:
        SourceError: it cannot be read; `reason` and the message say why.
        InvalidStreamError, QueryError: an option cannot be used.
        ImageError: one of the pictures is none; the message says which.
        ClientError: pictures without `fps`, `color` or `threads` cannot be used, or a package is missing.
    """
    color = color_of(color)
    settings = settings_of(threads, model)
    asked = None if resolution is None else parse_resolution(str(resolution))
    told = _told(progress)
    kept = None
    if not isinstance(source, str | os.PathLike):
        kept = _kept_pictures(source, fps, color, settings)
        source = kept.path
    word = os.fspath(source)
    require_not_a_camera(word)
    clips = clips_of([word], "" if fps is None else str(fps))
    if len(clips) != 1:
        raise ClientError(f"{shown(word)} names {len(clips)} videos; analyse them one by one")
    clip = clips[0]
    rate = "" if sample_fps is None else str(sample_fps) or "empty"
    spec, settings = spec_of_clip(clip, settings, rate, _recorded_at(recorded_at))
    with ExitStack() as stack:
        analysis = stack.enter_context(run_analysis(settings, spec, on_progress=told(stack)))
        name = "pictures" if kept else clip.name
        document = Results(analysis, name, settings).document(TimelineQuery(resolution_s=asked))
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
        self.warning = warning_of(parts.status)
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
        """One row for each point in time, with the columns of `moodline analyze --csv`."""
        return Rows(*timeline_rows(self.document))

    @cached_property
    def tracks(self) -> Rows:
        """One row for each face that was followed through the video."""
        return Rows(_TRACK_FIELDS, [_track_row(track) for track in self._tracks])

    @cached_property
    def frames(self) -> Rows:
        """One row for each face in each sampled frame, one for a frame without; the columns of `moodline analyze --faces`."""
        return Rows(FACE_FIELDS, [flat(row) for row in self._face_rows()])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the timeline as JSON; also write it, if a path is given. Raises `OutputError`: it cannot be written."""
        text = timeline_json(self.document)
        if path is not None:
            write_output(self._checked("to_json", path), text)
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the timeline as CSV; also write it, if a path is given. Raises `OutputError`: it cannot be written."""
        text = timeline_csv(self.document)
        if path is not None:
            write_output(self._checked("to_csv", path), text)
        return text

    def to_faces(self, path: str | Path) -> None:
        """Write each face of each frame as the ending says: `.csv`, `.ndjson` or `.parquet`."""
        file_format = require_faces_format(Path(path))
        with replacing(self._checked("to_faces", path)) as partial, partial.open("wb") as file:
            write_faces(self._face_rows(), file, file_format)

    def plot(self, path: str | Path) -> None:
        """Draw the timeline as `.png`, `.svg` or `.pdf`."""
        plot_timeline(self.document, self._checked("plot", path))

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
        target = self._checked("annotate", path, ANNOTATED_SUFFIXES)

        def on_frame(at_s: Fraction) -> bool:
            if progress is not None:
                progress(float(at_s))
            return True

        annotate(parts.spec, parts.settings, parts.messages, target, on_frame)

    def _checked(self, name: str, path: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
        """Return where a file is to be written. Raises `OutputError`: it cannot be, or it would replace the video."""
        check_outputs([Output(name, Path(path), suffixes)], self._parts.files, force=True)
        return Path(path)

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


def _recorded_at(given: datetime | str | None) -> str:
    if isinstance(given, datetime):
        return given.astimezone().isoformat()
    return "" if given is None else str(given) or "empty"


def _kept_pictures(given: Any, fps: object, color: str, settings: Settings) -> PictureFolder:
    """Write pictures without loss into a folder, since the workers read files."""
    if fps is None:
        raise ClientError("pictures need fps: how many of them make a second, such as fps=25")
    kept = PictureFolder()
    number, first_px = -1, (0, 0)
    for number, picture in enumerate(_video(given)):
        with named_in_errors(number):
            image = as_bgr(picture, color, settings)
            size_px = (image.shape[1], image.shape[0])
            first_px = first_px if number else size_px
            if size_px != first_px:
                raise ImageError(
                    "it has {} x {} px and the first one {} x {}; a video's are of one size".format(*size_px, *first_px)
                )
        _write_picture(kept.path / f"{number:09}.png", image)
    if number < 0:
        raise ClientError("there are no pictures")
    return kept


def _video(given: Any) -> Iterator[Picture]:
    """Return the pictures of a video. Raises `ImageError`: it is something else."""
    if hasattr(given, "__array__") and not hasattr(given, "convert"):
        frames = np.asarray(given)
        if frames.ndim == 4 or (frames.ndim == 3 and frames.shape[2] not in (1, 3, 4)):
            return iter(frames)
        raise ImageError(
            f"a video has the shape (frames, height, width, 3) or (frames, height, width), not {frames.shape}; "
            "a single picture goes to moodline.detect_emotions()"
        )
    pictures = pictures_of(given)
    if pictures is None:
        raise ImageError(f"a video is a path, an array or an iterable of pictures, not {type(given).__name__}")
    return pictures


def _write_picture(path: Path, image: "npt.NDArray[np.uint8]") -> None:
    import cv2

    try:
        path.write_bytes(cv2.imencode(".png", image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())
    except OSError as error:
        raise OutputError(
            f"the pictures cannot be kept in {shown(path.parent)}: {error.strerror}; TMPDIR names another folder"
        ) from None


def _told(progress: bool | Progress) -> Callable[[ExitStack], Callable[[AnalysisProgress], None] | None]:
    """Return what makes the function that is told of the progress, for as long as the stack is open."""
    if not (isinstance(progress, bool) or callable(progress)):
        raise ClientError(f"progress is True, False or a function of two numbers, not {progress!r}")
    return lambda stack: _teller(progress, stack)


def _teller(progress: bool | Progress, stack: ExitStack) -> Callable[[AnalysisProgress], None] | None:
    if progress is True:
        from rich.progress import Progress as Bar

        bar = stack.enter_context(Bar(transient=True, console=_stderr(), disable=not sys.stderr.isatty()))
        task = bar.add_task("moodline", total=None)

        def draw(now: AnalysisProgress) -> None:
            bar.update(task, completed=now.media_us, total=now.duration_us, description=f"{now.frames} frames")

        return draw
    if isinstance(progress, bool):
        return None

    def tell(now: AnalysisProgress) -> None:
        progress(now.media_us / 1e6, None if now.duration_us is None else now.duration_us / 1e6)

    return tell


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
