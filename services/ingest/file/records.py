"""Messages between a file's process and the ingest worker. The worker sends one `FileJob` and nothing else."""

import msgspec

from moodline.shared.streams import FailureReason


class FileJob(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """The task of one file's process; fields as in `StreamSpec`, `IngestSettings` and `Wanted`."""

    url: str
    media_root: str
    max_pixels: int
    memory_bytes: int
    sample_fps: str
    max_side_px: int
    jpeg_quality: int
    first_seq: int
    dropped: tuple[int, ...]


class FileOpened(msgspec.Struct, frozen=True, kw_only=True, tag="file_opened"):
    """The first frame was decoded; fields as in `SourceInfo`, `fps` as a fraction in text, or ""."""

    codec: str
    width: int
    height: int
    fps: str
    duration_us: int | None
    created_at_us: int | None


class FileFrame(msgspec.Struct, frozen=True, kw_only=True, tag="file_frame"):
    """One sampled frame; fields as in `FileSample`."""

    seq: int
    at_us: int
    width: int
    height: int
    jpeg: bytes
    repeats: int
    repeats_us: int
    why: str
    decoded: int
    damaged: int


class FileCounts(msgspec.Struct, frozen=True, kw_only=True, tag="file_counts"):
    """Totals so far, about once a second."""

    decoded: int
    damaged: int


class FileEnded(msgspec.Struct, frozen=True, kw_only=True, tag="file_ended"):
    """The content was read to its end; fields as in `Samples` and `Ending`."""

    decoded: int
    damaged: int
    end_us: int
    seq: int
    reason: FailureReason | None
    detail: str
    corrupt: int
    lost: int


class FileFailed(msgspec.Struct, frozen=True, kw_only=True, tag="file_failed"):
    """The content cannot be read."""

    reason: FailureReason
    detail: str


class FileDefect(msgspec.Struct, frozen=True, kw_only=True, tag="file_defect"):
    """Moodline's own code failed; `place` as of `place_of`."""

    place: str


FileRecord = FileOpened | FileFrame | FileCounts | FileEnded | FileFailed | FileDefect
