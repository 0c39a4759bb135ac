"""Opens cameras for an ingest worker: starts their processes and unseals their passwords."""

from moodline.services.ingest.camera.process.host import CameraHost
from moodline.services.ingest.camera.process.link import CameraLink
from moodline.services.ingest.live.records import Job
from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url import camera_address
from moodline.shared.seal import Sealer
from moodline.shared.streams import StreamSpec


class Cameras:
    """Opens camera processes and addresses. Thread-safe. Starts nothing before the first camera is opened."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._host = CameraHost()

    def open(self, job: Job) -> CameraLink:
        """Start a process that reads a camera."""
        return self._host.open(job)

    def address_of(self, spec: StreamSpec) -> CameraAddress:
        """Return a stream's whole address. Raises `SealError`, `InvalidStreamError`."""
        return camera_address(spec, self._sealer.open(spec.stream_id, spec.sealed))

    def close(self) -> None:
        """End all camera processes. Safe to call twice."""
        self._host.close()
