"""Trying a camera in a process of its own: what strangers send may crash or hang a decoder.

The job goes over the process's standard input, and each step comes back as one line of JSON. The process ends with its input:
whoever asked may be gone.
"""

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from moodline.services.ingest.camera.probe import probe
from moodline.services.ingest.camera.process.job import parts_of
from moodline.services.ingest.camera.process.job_of import job_of
from moodline.services.ingest.camera.process.link import sentence_of
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.process.fate import EXIT_MEMORY
from moodline.services.ingest.process.host import host_environment
from moodline.services.ingest.process.limits import limit_memory
from moodline.services.ingest.stream.crashes import place_of
from moodline.shared.camera import CameraAddress
from moodline.shared.probe import CameraStep
from moodline.shared.settings import IngestSettings

_WATCHED_S: Final = 3.0
"""How long frames are watched."""
_MARGIN_S: Final = 5.0
_LINE_LIMIT_BYTES: Final = 16 * 1024
_STEPS_LIMIT: Final = 100
_FATE_WAIT_S: Final = 2.0
_END: Final = "test"
_DONE: Final = b"\n"


def probe_camera(address: CameraAddress, settings: IngestSettings) -> Iterator[CameraStep]:
    """Try a camera, and yield what comes of each step as it is done; raises nothing, and takes no longer than the time-outs.

    Args:
        address: Of the camera.
        settings: Address policy, time-outs, size and memory.
    """
    job = job_of(address, settings, sample_fps="5", max_side_px=settings.max_side_px)
    try:
        attempt = _Attempt(job)
    except OSError:
        yield CameraStep(name=_END, good=False, found="the process that tries cameras cannot be started")
        return
    with attempt:
        yield from attempt.steps()


class _Attempt:
    """One process, and the time that it has."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._limit_s = 2 * job.open_timeout_s + job.first_frame_timeout_s + _WATCHED_S + _MARGIN_S
        self._is_late = False
        self._process = subprocess.Popen(  # our own module
            (sys.executable, "-P", "-m", "moodline.services.ingest.camera.probe_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=host_environment(os.environ),
            start_new_session=True,
        )
        self._timer = threading.Timer(self._limit_s, self._end_late)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # both are pipes
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def steps(self) -> Iterator[CameraStep]:
        """Yield the steps; the last one says why, where the process ended early."""
        source, output = self._process.stdin, self._process.stdout
        assert source is not None  # both are pipes
        assert output is not None
        with suppress(OSError):  # It has died already; its status says why.
            source.write(msgspec.json.encode(self._job) + b"\n")
            source.flush()
        for _ in range(_STEPS_LIMIT):
            line = output.readline(_LINE_LIMIT_BYTES)
            if line == _DONE:
                return
            try:
                yield msgspec.json.decode(line, type=CameraStep)
            except msgspec.DecodeError:
                break
        yield CameraStep(name=_END, good=False, found=self._why(), cure="")

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _why(self) -> str:
        try:
            code = self._process.wait(_FATE_WAIT_S)
        except subprocess.TimeoutExpired:
            return "the process that tries the camera says nothing any more and was ended"
        if self._is_late:
            return f"the test took longer than {self._limit_s:g} s and was ended"
        # Back to what the system's call says, as the camera host hears it.
        return sentence_of(-code if code < 0 else code << 8)


def _main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    # A core file would hold the password.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory(job.memory_bytes)
    threading.Thread(target=_end_with_input, name="control", daemon=True).start()
    try:
        for step in probe(*parts_of(job), _WATCHED_S):
            _tell(msgspec.json.encode(step) + b"\n")
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except Exception as error:  # noqa: BLE001  # the process ends here; a message may hold the address or the password
        _tell(msgspec.json.encode(CameraStep(name=_END, good=False, found=place_of(error))) + b"\n")
    _tell(_DONE)
    os._exit(0)


def _tell(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _main()
