"""The seconds that rules are evaluated on, from the store."""

from collections.abc import Iterator
from typing import Final

from moodline.services.alerts.evaluator import Second
from moodline.shared.messages import StreamClass
from moodline.shared.store import Standing
from moodline.shared.store.base import TimelineStore
from moodline.shared.streams import StreamSpec, StreamStatus
from moodline.shared.timeline.bucket import SECOND_US, unpack

ON_ITS_WAY_S: Final = 5
"""What has not come in after so long is taken as absent."""

LAG_S: Final = 120
"""So long what a camera has sent, but the timeline lacks, is waited for."""

_CHUNK_S: Final = 3600


def closed_to_s(spec: StreamSpec, status: StreamStatus, progress: Standing, now_s: float) -> int:
    """Return the second up to which (not included) a timeline will not change any more, or is not waited for any longer.

    Event time never goes back, so everything before a stream's newest frame is closed. A camera that sends nothing closes
    nothing: then the present counts, less what may be on its way. Where the camera does send and the timeline lags behind,
    the timeline is waited for, so that a fault of Moodline's own is not taken for an absence.
    """
    last_us = progress.last_event_time_us
    closed_s = 0 if last_us is None else last_us // SECOND_US + (1 if progress.final else 0)
    if spec.lane is StreamClass.FILE:
        return closed_s
    present_s = int(now_s) - ON_ITS_WAY_S
    lags = last_us is not None and status.last_frame_us > last_us + ON_ITS_WAY_S * SECOND_US
    if lags and present_s - closed_s < LAG_S:
        return closed_s
    return max(closed_s, present_s)


def seconds(store: TimelineStore, spec: StreamSpec, start_s: int, stop_s: int) -> Iterator[Second]:
    """Yield every second from `start_s` until before `stop_s`. Blocks on the store, an hour at a time.

    In a file nothing is absent: a second without frames was not observed. Nor was a camera in a pause.

    Raises:
        StoreError: a stored value cannot be read.
    """
    observed = spec.lane is StreamClass.LIVE and not spec.paused
    for chunk_s in range(start_s, stop_s, _CHUNK_S):
        end_s = min(stop_s, chunk_s + _CHUNK_S)
        bucket_values = {index: unpack(value) for index, value in store.read(spec.stream_id, "", 1, chunk_s, end_s)}
        for second in range(chunk_s, end_s):
            bucket = bucket_values.get(second)
            if bucket is None:
                yield Second(second, observed=observed)
            else:
                yield Second(
                    second, bucket.sampled, bucket.classified, bucket.faces, bucket.leading, unreadable=bucket.unreadable
                )
