"""Pushed streams whose process died while it took their frames: nobody is left who could say that none comes any more."""

from collections.abc import Sequence
from typing import Final

import msgspec

from moodline.shared.errors import StreamNotFoundError
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState

_MARGIN_S: Final = 15.0
"""A process that lives has said it by then."""
_BUSY: Final = frozenset({StreamState.LIVE, StreamState.STALLED})


def settle_abandoned(store: Store, pushed: Sequence[StreamSpec], now_s: float, silence_s: float) -> list[str]:
    """Make `pending` what still says `live` or `stalled` although the last frame came more than `silence_s` ago.

    Done under a new acquisition, so a process that was only frozen is fenced; its next frame acquires again. Returns the
    streams' ids.

    Raises:
        StoreUnavailableError: try again later.
    """
    settled = []
    before_us = int((now_s - silence_s - _MARGIN_S) * 1e6)
    for spec, status in zip(pushed, store.statuses([spec.stream_id for spec in pushed]), strict=True):
        if status.state not in _BUSY or max(status.last_frame_us, status.since_us) > before_us:
            continue
        try:
            epoch = store.acquire(spec.stream_id, now_s).epoch
        except StreamNotFoundError:
            continue
        reported = msgspec.structs.replace(
            status, state=StreamState.PENDING, detail="no frame comes any more", since_us=int(now_s * 1e6), fps=0.0
        )
        if store.set_status(spec.stream_id, epoch, reported):
            settled.append(spec.stream_id)
    return settled
