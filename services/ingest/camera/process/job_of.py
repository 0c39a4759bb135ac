"""Making the job of a camera's process."""

from moodline.services.ingest.live.records import Job
from moodline.shared.camera import CameraAddress
from moodline.shared.settings import IngestSettings


def job_of(address: CameraAddress, settings: IngestSettings, *, sample_fps: str, max_side_px: int, not_before_us: int = 0) -> Job:
    """Return what a camera's process is to do; the parameters are those of `Job`."""
    return Job(
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        target=address.target,
        username=address.username,
        password=address.password,
        transport=address.transport,
        tls_verify=address.tls_verify,
        sample_fps=sample_fps,
        max_side_px=max_side_px,
        jpeg_quality=settings.jpeg_quality,
        max_pixels=settings.max_pixels,
        open_timeout_s=settings.open_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        first_frame_timeout_s=settings.first_frame_timeout_s,
        clock_tolerance_s=settings.clock_tolerance_s,
        schemes=settings.schemes,
        allow_loopback=settings.allow_loopback,
        allow_networks=settings.allow_networks,
        deny_networks=settings.deny_networks,
        tls_ca_file=None if settings.tls_ca_file is None else str(settings.tls_ca_file),
        memory_bytes=settings.camera_memory_bytes,
        not_before_us=not_before_us,
    )
