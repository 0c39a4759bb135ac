"""The results of an analysis in the forms that are written: timeline, rows of faces, annotated video."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from moodline.services.analysis.faces import rows_of, track_frames
from moodline.services.report import TimelineDocument, timeline_document
from moodline.services.report.document import analysis_document
from moodline.services.report.faces import write_faces
from moodline.services.report.outputs import replacing
from moodline.shared.messages import Emotions
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline import TimelineQuery, timeline

if TYPE_CHECKING:
    from moodline.services.analysis.annotate import Annotated


class Analysed(Protocol):
    """The source of results: an analysis of a file, or the frames that were seen of a camera."""

    @property
    def store(self) -> Store:
        """The store that holds the timeline."""
        ...

    @property
    def spec(self) -> StreamSpec:
        """The stream."""
        ...

    @property
    def status(self) -> StreamStatus:
        """Its last status."""
        ...

    def frames(self) -> Iterator[Emotions]:
        """Yield every sampled frame's result, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """The frames that were seen of a camera."""

    store: Store
    spec: StreamSpec
    status: StreamStatus
    messages: Sequence[Emotions]

    def frames(self) -> Iterator[Emotions]:
        """Yield every sampled frame's result, in order."""
        return iter(self.messages)


def warning_of(status: StreamStatus) -> str:
    """Return why a file was not read whole; empty where it was."""
    return ": ".join(part for part in (status.reason, status.detail) if part)


@dataclass(frozen=True, slots=True)
class Results:
    """The results of an analysis. They can be used as long as the analysis is open.

    Attributes:
        analysis: The analysis.
        name: The clip's, for titles.
        settings: Those that it was made with.
    """

    analysis: Analysed
    name: str
    settings: Settings

    def document(self, query: TimelineQuery) -> TimelineDocument:
        """Return the timeline."""
        spec = self.analysis.spec
        answer = timeline(self.analysis.store, spec.stream_id, spec.lane, query)
        document = timeline_document(answer, stream=self.name, lane=spec.lane, recorded_at_us=spec.recorded_at_us)
        return analysis_document(document, self.analysis.status)

    def write_faces(self, file: IO[bytes], file_format: str) -> None:
        """Write a row for each face of each sampled frame; formats as in `moodline.services.report.faces`."""
        analysis = self.analysis
        rows = rows_of(analysis.frames(), analysis.spec, analysis.status, self.settings.aggregator)
        write_faces(rows, file, file_format)

    def write_annotated(self, path: Path, on_frame: Callable[[Fraction], bool] = lambda _: True) -> "Annotated":
        """Write the video with boxes, track numbers and leading emotions, and its sound.

        Args:
            path: Where; a file that is there is replaced when the new one is complete.
            on_frame: Told the time of each frame in s; answers False to end the video here.

        Raises:
            OutputError: it cannot be written.
            SourceError: the clip cannot be read any more.
        """
        return annotate(self.analysis.spec, self.settings, self.analysis.frames(), path, on_frame)


def annotate(
    spec: StreamSpec,
    settings: Settings,
    frames: Iterable[Emotions],
    path: Path,
    on_frame: Callable[[Fraction], bool] = lambda _: True,
) -> "Annotated":
    """Write an annotated video; see `Results.write_annotated`."""
    from moodline.services.analysis.annotate import overlays_of, write_annotated
    from moodline.services.ingest.file.media_file import open_media_file
    from moodline.services.ingest.file.open import open_source
    from moodline.services.ingest.media.sampling import Sampler

    ingest = settings.ingest
    is_file = spec.url.startswith("file:")
    with closing(open_source(spec.url, ingest)) as source, replacing(path) as partial:
        return write_annotated(
            source,
            Sampler(spec.sample_fps),
            overlays_of(track_frames(frames, settings.aggregator)),
            partial,
            suffix=path.suffix,
            sound=(lambda: open_media_file(spec.url, ingest.media_root)) if is_file else None,
            on_frame=on_frame,
        )
