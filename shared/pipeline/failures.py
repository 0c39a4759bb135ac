"""Records in the store the frames that a worker failed on, for the worker that reads the file again."""

import logging

from moodline.shared.errors import StoreError
from moodline.shared.messages import StreamClass
from moodline.shared.pipeline.stage import Received
from moodline.shared.store import ProgressStore

log = logging.getLogger("moodline.worker")


class FailureRecorder:
    """Called by a worker when its stage has failed on a message. Frames of live streams are not recorded: none is sent again."""

    def __init__(self, store: ProgressStore, worker: str) -> None:
        self._store = store
        self._worker = worker

    def __call__(self, item: Received, error: str) -> None:
        message, place = item.message, item.position
        if message.lane is not StreamClass.FILE:
            return
        dead_letter = f"{error} in the {self._worker}, dead letter of {place.topic}/{place.partition}@{place.offset}"
        try:
            self._store.add_failure(message.stream_id, message.epoch, message.seq, dead_letter)
        except StoreError as failure:
            # The file is read again, and fails again: then it is noted.
            log.warning("failure.not_noted", extra={"stream_id": message.stream_id, "seq": message.seq, "reason": str(failure)})
