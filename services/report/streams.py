"""Make the answer about a stream from what the store knows of it. Pure."""

from datetime import datetime

from moodline.services.report.document import SourceDocument, source_document
from moodline.services.report.moments import to_datetime
from moodline.services.report.stream_document import ProgressAnswer, Status, StreamAnswer, Video
from moodline.shared.clock_offset import SKEW_S
from moodline.shared.messages import StreamClass
from moodline.shared.store import Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus, is_pushed


def describe(spec: StreamSpec, status: StreamStatus, progress: Standing) -> StreamAnswer:
    """Put definition, state and progress of one stream together."""
    is_live = spec.lane is StreamClass.LIVE
    is_camera = is_live and not is_pushed(spec.url)
    return StreamAnswer(
        id=spec.stream_id,
        url=spec.url,
        lane=spec.lane,
        transport=spec.transport if is_camera else None,
        tls_verify=spec.tls_verify if is_camera else None,
        has_credentials=bool(spec.sealed),
        sample_fps=spec.sample_fps,
        max_side_px=spec.max_side_px,
        recorded_at=None if is_live else to_datetime(spec.recorded_at_us),
        labels=spec.labels,
        paused=spec.paused,
        preview=spec.preview,
        attempt=spec.attempt,
        created_at=to_datetime(spec.created_at_us),
        revision=spec.revision,
        status=_status(spec, status, progress),
        video=_video(status),
        progress=_progress(spec, status, progress),
        source=_source(spec, status, progress),
    )


def state_of(spec: StreamSpec, status: StreamStatus, progress: Standing) -> StreamState:
    """Return the state that holds now, where the reader may not have noticed a change yet.

    A complete timeline is `ended`, whatever else. A user's pause holds at once. What a reader said of an earlier attempt, or
    of a pause that is over, is past: nobody has taken the stream since, so it is `pending`. A reader that has come to the
    end of a file is still `playing` until the rest is in the timeline.
    """
    if progress.final:
        return StreamState.ENDED
    if spec.paused:
        return StreamState.PAUSED
    if status.attempt < spec.attempt or status.state is StreamState.PAUSED:
        return StreamState.PENDING
    if status.state is StreamState.ENDED and spec.lane is StreamClass.FILE:
        return StreamState.PLAYING
    return status.state


def _status(spec: StreamSpec, status: StreamStatus, progress: Standing) -> Status:
    state = state_of(spec, status, progress)
    if state is not status.state:
        return Status(state=state)
    detail = status.detail or _of_skew(status)
    reported = Status(state=state, reason=status.reason, detail=detail, since=_moment(status.since_us))
    return reported.model_copy(update=_measured(status)) if spec.lane is StreamClass.LIVE else reported


def _of_skew(status: StreamStatus) -> str:
    ahead_s = status.host_clock_ahead_ms / 1000
    if abs(ahead_s) < SKEW_S:
        return ""
    side = "ahead of" if ahead_s > 0 else "behind"
    return f"the clock of the host that reads this stream is {abs(ahead_s):.1f} s {side} the store's; set both by NTP"


def _measured(status: StreamStatus) -> dict[str, object]:
    return {
        "attempts": status.attempts,
        "next_attempt": _moment(status.next_attempt_us),
        "last_frame": _moment(status.last_frame_us),
        "fps": status.fps if status.last_frame_us else None,
        "clock_offset_ms": status.clock_offset_ms,
        "lost_packets": status.lost_packets,
    }


def _moment(us: int) -> datetime | None:
    return to_datetime(us) if us else None


def _video(status: StreamStatus) -> Video | None:
    if not status.width:
        return None
    return Video(width=status.width, height=status.height, codec=status.codec, source_fps=status.source_fps)


def _source(spec: StreamSpec, status: StreamStatus, progress: Standing) -> SourceDocument | None:
    is_read = spec.lane is StreamClass.FILE and progress.final and status.played_us is not None
    return source_document(status) if is_read else None


def _progress(spec: StreamSpec, status: StreamStatus, progress: Standing) -> ProgressAnswer:
    is_live = spec.lane is StreamClass.LIVE
    # The end of a stream takes a sequence number of its own.
    frames = progress.high_water_mark.seq + (0 if progress.final else 1) if progress.high_water_mark else 0
    last_us = progress.last_event_time_us
    position_us = 0 if last_us is None else max(0, last_us - spec.recorded_at_us)
    return ProgressAnswer(
        frames=frames,
        last_time=None if last_us is None else to_datetime(last_us),
        position_s=None if is_live else position_us / 1e6,
        duration_s=None if status.duration_us is None or is_live else status.duration_us / 1e6,
        percent=None if is_live else _percent(position_us, status.duration_us, final=progress.final),
        complete=progress.final,
    )


def _percent(position_us: int, duration_us: int | None, *, final: bool) -> float | None:
    if final:
        return 100.0
    if not duration_us:
        return None
    # Containers may understate their length; 100 is said only of a complete timeline.
    return min(99.9, round(100 * position_us / duration_us, 1))
