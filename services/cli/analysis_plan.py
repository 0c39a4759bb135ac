"""What `moodline analyze` is to do: for each clip its options and outputs, judged before the work begins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moodline.services.report.faces import FACE_SUFFIXES, require_faces_format
from moodline.services.report.moments import to_us
from moodline.services.report.outputs import STDOUT, Output, check_outputs, shown
from moodline.services.report.plot import FORMATS
from moodline.shared.errors import InvalidStreamError, OutputError, QueryError
from moodline.shared.settings import Settings
from moodline.shared.streams import StreamSpec, parse_sample_fps
from moodline.shared.timeline import parse_resolution
from moodline.shared.timeline.times import parse_time

if TYPE_CHECKING:
    from moodline.services.analysis.inputs import Clip

_VIDEO_SUFFIXES: Final = (".mp4", ".mkv", ".mov", ".webm")
_DEFAULT_SUFFIXES: Final = {"--json": ".json", "--csv": ".csv", "--plot": ".png", "--annotate": ".mp4", "--faces": ".csv"}


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for all clips of a call. `force` is also set with `resume`: the outputs of the interrupted run are there."""

    sample_fps: str = ""
    resolution: str = ""
    recorded_at: str = ""
    force: bool = False
    resume: bool = False
    strict: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class Plan:
    """One clip, what is to be written of it, and what became of it."""

    clip: "Clip"
    outputs: dict[str, Path]
    options: Options
    summary: str = ""
    frames: int = 0
    faces: int = 0
    elapsed_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    warning: str = ""

    @property
    def prints(self) -> bool:
        """Return whether one of the outputs is standard output."""
        return STDOUT in self.outputs.values()


def make_spec(clip: "Clip", options: Options, settings: Settings) -> tuple[StreamSpec, Settings]:
    """Return the stream of a clip, and settings whose media root holds it.

    Raises:
        InvalidStreamError: an option cannot be used.
    """
    from moodline.services.analysis.analyze import STREAM_ID

    rate = options.sample_fps or settings.ingest.sample_fps
    parse_sample_fps(rate)
    if options.resolution:
        parse_resolution(options.resolution)
    if clip.folder is not None:
        settings = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"media_root": clip.folder})})
    spec = StreamSpec(
        stream_id=STREAM_ID,
        url=clip.url,
        sample_fps=rate,
        max_side_px=settings.ingest.max_side_px,
        recorded_at_us=_recorded_at(clip, options.recorded_at, settings),
    )
    return spec, settings


def outputs_of(clip: "Clip", wanted: dict[str, Path | None], *, several: bool) -> dict[str, Path]:
    """Return where each output of a clip goes; of several clips each output names a folder, or has `{name}` in it."""
    outputs = {}
    for option, path in wanted.items():
        if path is None:
            continue
        if "{name}" in str(path):
            outputs[option] = Path(str(path).replace("{name}", clip.stem))
        elif not several:
            outputs[option] = path
        elif path.is_dir():
            outputs[option] = path / f"{clip.stem}{_DEFAULT_SUFFIXES[option]}"
        else:
            raise OutputError(
                f"{option} {shown(path)}: of several clips it names a folder that is there, or has {{name}} in it, "
                f"such as {option} '{{name}}{_DEFAULT_SUFFIXES[option]}'"
            )
    return outputs


def judge_plans(plans: Sequence[Plan], *, force: bool) -> None:
    """Make sure that all outputs of all clips can be written. Raises `OutputError`."""
    suffixes = {"--plot": tuple(f".{name}" for name in FORMATS), "--annotate": _VIDEO_SUFFIXES, "--faces": FACE_SUFFIXES}
    outputs, inputs = [], [file for plan in plans for file in plan.clip.files]
    for plan in plans:
        for option, path in plan.outputs.items():
            if path == STDOUT and option in ("--plot", "--annotate"):
                raise OutputError(f"{option} writes a file, and cannot write to standard output")
            # An encoded video is seldom smaller than a tenth of its source.
            size = sum(file.stat().st_size for file in plan.clip.files) // 10 if option == "--annotate" else 0
            outputs.append(Output(option, path, suffixes.get(option, ()), max(1 << 20, size)))
    check_outputs(outputs, inputs, force=force)
    for output in outputs:
        if output.option == "--faces" and output.path != STDOUT:
            require_faces_format(output.path)
        if output.option == "--plot" and find_spec("matplotlib") is None:
            raise OutputError("--plot needs the package matplotlib: pip install 'moodline[plot]'")


def _recorded_at(clip: "Clip", text: str, settings: Settings) -> int:
    """Return when a clip was recorded, microseconds since the Unix epoch; `auto`: as the file itself says."""
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
