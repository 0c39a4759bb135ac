"""Plans a call of `moodline analyze`: options and outputs of each clip, judged before the work begins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moodline.services.report.faces import FACE_SUFFIXES, require_faces_format
from moodline.services.report.outputs import ANNOTATED_SUFFIXES, STDOUT, Output, check_outputs, shown
from moodline.services.report.plot import FORMATS
from moodline.shared.errors import OutputError
from moodline.shared.settings import Settings
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline import parse_resolution

if TYPE_CHECKING:
    from moodline.services.analysis.inputs import Clip

_DEFAULT_SUFFIXES: Final = {"--json": ".json", "--csv": ".csv", "--plot": ".png", "--annotate": ".mp4", "--faces": ".csv"}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a call, for all clips. `force` is also set with `resume`: the outputs of the interrupted run are there."""

    sample_fps: str = ""
    resolution: str = ""
    recorded_at: str = ""
    force: bool = False
    resume: bool = False
    strict: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class Plan:
    """One clip, the outputs that are asked for, and the results."""

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
        InvalidStreamError, QueryError: an option cannot be used.
    """
    from moodline.services.analysis.spec import spec_of_clip

    if options.resolution:
        parse_resolution(options.resolution)
    return spec_of_clip(clip, settings, options.sample_fps, options.recorded_at)


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
    suffixes = {"--plot": tuple(f".{name}" for name in FORMATS), "--annotate": ANNOTATED_SUFFIXES, "--faces": FACE_SUFFIXES}
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
