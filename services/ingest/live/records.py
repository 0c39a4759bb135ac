"""Messages between a camera's process and the ingest worker, over one socket pair for each camera.

The worker sends one `Job` and nothing else; when it closes its end, the process ends at once. The process sends records; it
never waits for the worker to take a frame: while one cannot be handed over, newer ones replace it.

Framing: a length of 4 bytes, big-endian, then MessagePack of one record.
"""

import msgspec

from moodline.shared.messages import DropReason
from moodline.shared.streams import FailureReason, Transport


class Job(msgspec.Struct, frozen=True, kw_only=True, tag="job"):
    """The task of one camera process. Holds credentials: it is sent over the socket pair only, and never shown.

    Attributes:
        scheme, host, port, target, username, password, transport, tls_verify: As in `CameraAddress`.
        sample_fps, max_side_px: As in `StreamSpec`.
        jpeg_quality, max_pixels: As in `IngestSettings`.
        open_timeout_s, read_timeout_s, first_frame_timeout_s, clock_tolerance_s: As in `IngestSettings`.
        schemes, allow_loopback, allow_networks, deny_networks, tls_ca_file: The address policy, as in `IngestSettings`.
        memory_bytes: Most private memory of the process.
        not_before_us: Event time of the last frame that is in the stream's timeline; new ones come after it.
    """

    scheme: str
    host: str
    port: int
    target: str
    username: str | None
    password: str | None
    transport: Transport
    tls_verify: bool
    sample_fps: str
    max_side_px: int
    jpeg_quality: int
    max_pixels: int
    open_timeout_s: float
    read_timeout_s: float
    first_frame_timeout_s: float
    clock_tolerance_s: float
    schemes: str
    allow_loopback: bool
    allow_networks: str
    deny_networks: str
    tls_ca_file: str | None
    memory_bytes: int
    not_before_us: int = 0

    def __repr__(self) -> str:
        return f"Job({self.scheme})"


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The first frame was decoded. `fps` is what the camera claims, a fraction in text, or ""."""

    codec: str
    width: int
    height: int
    fps: str


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """One sampled frame, in order.

    Attributes:
        event_time_us: Position on the timeline; never goes back within a process, nor before `Job.not_before_us`.
        captured_at_us: Wall clock when the frame had arrived, or would have without the delay that its time stamp shows.
        segment: Rises by one when the camera's clock was set or began again: what follows is a new epoch.
        width, height: Of the JPEG; 0 when there is none.
        jpeg: Empty when skipped.
        skip: `overloaded` when a newer frame took its place before it could be handed over, `corrupt` when it could not be
            converted, else None.
        missed: Sampled frames before this one of which nothing is known any more: too many were waiting.
    """

    event_time_us: int
    captured_at_us: int
    segment: int
    width: int = 0
    height: int = 0
    jpeg: bytes = b""
    skip: DropReason | None = None
    missed: int = 0


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """Sent about once a second, also while no frame comes: totals since the process began.

    Attributes:
        decoded, damaged, packets, lost_packets, overloaded: As in `LiveCounts`.
        last_frame_us: Wall clock of the newest decoded frame; 0 before the first.
        fps: Frames that arrived per second, lately.
        width, height: Of the newest frame.
        clock_offset_ms: How far the camera's clock is ahead of ours; None where it tells no time.
    """

    decoded: int
    damaged: int
    packets: int
    lost_packets: int
    last_frame_us: int
    fps: float
    width: int
    height: int
    clock_offset_ms: int | None
    overloaded: int = 0


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The last record: the connection is over. `detail` is one fixed sentence; never text from camera or URL."""

    reason: FailureReason
    detail: str


Record = Opened | Sample | Stats | Failed
