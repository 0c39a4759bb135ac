"""Starts the processes of cameras."""

from typing import Final

from moodline.services.ingest.camera.process.link import CameraGoneError, CameraLink
from moodline.services.ingest.live.records import Job
from moodline.services.ingest.process.host import Forked, ProcessGoneError, ProcessHost

DEFAULT_OPENER: Final = "moodline.services.ingest.camera.process.job:open_job"
_RUNNER: Final = "moodline.services.ingest.camera.process.job:run_camera"
_PRELOAD: Final = (
    "moodline.services.ingest.camera.input.egress",
    "moodline.services.ingest.camera.rtsp.source",
    "moodline.services.ingest.camera.http.source",
    "moodline.services.ingest.camera.sources.device",
)

_START_S: Final = 30.0
"""Longest time until the host has loaded its modules and forked; it takes a second on an idle machine."""
_SEND_BUFFER_BYTES: Final = 64 * 1024
"""Of the camera's end: what waits here for the worker grows old, so it is kept to a frame or two."""


class CameraHost:
    """Starts one process per camera. Thread-safe. Starts nothing before the first camera; a host that died is replaced."""

    def __init__(self, opener: str = DEFAULT_OPENER) -> None:
        """Prepare; nothing is started yet. `opener` is what opens a camera, a `JobOpener` as `module:function`."""
        self._host = ProcessHost(Forked("moodline-camera", _RUNNER, (opener,), _PRELOAD), _SEND_BUFFER_BYTES)

    @property
    def pid(self) -> int | None:
        """The host's process id; None when none runs."""
        return self._host.pid

    def open(self, job: Job) -> CameraLink:
        """Start a process that reads a camera; blocks until it runs, which takes a second for the first and milliseconds then.

        Raises:
            CameraGoneError: it cannot be started, or the host was closed.
        """
        try:
            link = CameraLink(*self._host.start())
        except ProcessGoneError as error:
            raise CameraGoneError(str(error)) from None
        fate = link.fate
        try:
            link.send(job)
            if not fate.wait_started(_START_S):
                raise CameraGoneError("the camera's process did not start in time")
        except CameraGoneError:
            link.close()
            raise
        return link

    def close(self) -> None:
        """End the host and all camera processes; returns when they are gone. Safe to call twice."""
        self._host.close()
