"""Waiting until what was sent is durable, for as long as the bus is away."""

import logging
import threading
from typing import Final

from moodline.shared.bus.base import Producer
from moodline.shared.errors import NotDeliveredYetError
from moodline.shared.pipeline.health import Health

log = logging.getLogger("moodline.worker")

_POLL_S: Final = 5.0
_REPORT_EVERY: Final = 6


def flush_patiently(producer: Producer, worker: str, stop: threading.Event, health: Health | None) -> None:
    """Flush until everything is durable; say while it is not.

    Raises:
        NotDeliveredYetError: `stop` was set before.
        DeliveryError: records were lost.
    """
    tries = 0
    while True:
        try:
            producer.flush(_POLL_S)
        except NotDeliveredYetError as error:
            if stop.is_set():
                raise
            if health is not None:
                health.waits(worker, f"bus: {error}")
            if tries % _REPORT_EVERY == 0:
                log.warning("delivery.waiting", extra={"worker": worker, "topics": sorted(error.topics), "reason": str(error)})
            tries += 1
        else:
            return
