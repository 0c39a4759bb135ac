"""Finding out whether a file is a video, in a process of its own: what strangers send may crash or hang a decoder."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from moodline.services.ingest.file.open import open_source
from moodline.services.ingest.process.host import host_environment
from moodline.shared.errors import InvalidStreamError, SourceError
from moodline.shared.probe import Probed
from moodline.shared.settings import IngestSettings
from moodline.shared.streams import FailureReason

_OUTPUT_LIMIT_BYTES: Final = 64 * 1024


class _Task(msgspec.Struct, frozen=True):
    url: str
    media_root: str
    max_pixels: int
    memory_bytes: int
    cpu_s: int


class _Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: FailureReason
    detail: str


class _Found(msgspec.Struct, frozen=True, tag="found"):
    probed: Probed


def probe_file(path: Path, settings: IngestSettings, timeout_s: float) -> Probed:
    """Open a file below the media root and decode its first frame, in a process that may die. Blocks.

    Raises:
        SourceError: as `open_source` says; `timeout` after `timeout_s`; `corrupt` when the process died.
    """
    task = _Task(
        path.as_uri(),
        str(settings.media_root.expanduser()),
        settings.max_pixels,
        settings.file_memory_bytes,
        int(timeout_s) + 1,
    )
    command = (sys.executable, "-P", "-m", "moodline.services.ingest.file.probe")
    try:
        done = subprocess.run(  # noqa: S603  # our own module
            command,
            input=msgspec.json.encode(task),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=host_environment(os.environ),
        )
    except subprocess.TimeoutExpired:
        raise SourceError(FailureReason.TIMEOUT, f"the file's first frame could not be decoded within {timeout_s:g} s") from None
    try:
        answer: _Refused | _Found = msgspec.json.decode(done.stdout[-_OUTPUT_LIMIT_BYTES:], type=_Refused | _Found)
    except msgspec.DecodeError:
        raise SourceError(FailureReason.CORRUPT, "the file makes the decoder fail") from None
    if isinstance(answer, _Refused):
        raise SourceError(answer.reason, answer.detail)
    return answer.probed


def _probed(task: _Task) -> _Found | _Refused:
    settings = IngestSettings(media_root=Path(task.media_root), max_pixels=task.max_pixels)
    try:
        source = open_source(task.url, settings)
    except SourceError as error:
        return _Refused(FailureReason(error.reason), str(error))
    except InvalidStreamError as error:
        return _Refused(FailureReason.FORBIDDEN_URL, str(error))
    info = source.info
    source.close()
    fps = "" if info.fps is None else str(info.fps)
    return _Found(
        Probed(
            codec=info.codec,
            width=info.width,
            height=info.height,
            source_fps=fps,
            duration_us=info.duration_us,
            created_at_us=info.created_at_us,
        )
    )


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (task.memory_bytes, task.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (task.cpu_s, task.cpu_s))
    sys.stdout.buffer.write(msgspec.json.encode(_probed(task)))


if __name__ == "__main__":
    _main()
