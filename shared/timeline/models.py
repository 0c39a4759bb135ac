"""Records which model made which part of a timeline.

Series `MODELS_SERIES`, one bucket value for each day (UTC) with a classified frame, index = day since the Unix epoch: the
changes of that day, its first frame included, in order of event time. So the answer for any stretch of time lies in the bucket
values of its own days. Days are no stored tier, so these bucket values are kept as long as the longest-kept points.
MessagePack: `[format version, [[second, last second before it, model], ...]]`.
"""

from bisect import bisect_left
from typing import Final

import msgspec

from moodline.shared.errors import StoreError
from moodline.shared.store.base import BucketValueRange, TimelineStore

MODELS_SERIES: Final = "models"
MODELS_TIER_S: Final = 86_400

CHANGES_LIMIT: Final = 500
"""Changes that are kept of one day; later ones are not told apart."""

_FORMAT_VERSION: Final = 1

Change = tuple[int, int, str]
"""Second of event time from which a model answered, last second before it in which one did, and the model's name."""


class ModelDay(msgspec.Struct, array_like=True):
    """The models of the present day of event time.

    Attributes:
        day: Days since the Unix epoch.
        last_second: Event time of the last classified frame, seconds since the Unix epoch.
        changes: The changes of the day.
    """

    day: int
    last_second: int
    changes: list[Change]


def record_model(known: ModelDay | None, model: str, second: int) -> tuple[ModelDay, bool]:
    """Note that a model classified a frame; `second` never goes back.

    Returns:
        What is known now, and whether the day's bucket value has changed.
    """
    day = second // MODELS_TIER_S
    last_second = second if known is None else known.last_second
    if known is None or known.day != day:
        return ModelDay(day, second, [(second, last_second, model)]), True
    changes = known.changes
    is_new = changes[-1][2] != model and len(changes) < CHANGES_LIMIT
    # Two workers may take turns within a second, while they change over; once is enough.
    is_new = is_new and not any(at == second and name == model for at, _, name in changes[-8:])
    if is_new:
        changes.append((second, last_second, model))
    known.last_second = second
    return known, is_new


def pack_models(day: ModelDay) -> bytes:
    """Return the stored form of a day."""
    return msgspec.msgpack.encode((_FORMAT_VERSION, day.changes))


def unpack_models(value: bytes) -> list[Change]:
    """Return the changes of a stored day.

    Raises:
        StoreError: the bytes are damaged or of another format version.
    """
    try:
        version = msgspec.msgpack.decode(value, type=list[msgspec.Raw])[0]
        if msgspec.msgpack.decode(version, type=int) != _FORMAT_VERSION:
            raise StoreError("a stored list of models has another format version; upgrade the older side")
        return msgspec.msgpack.decode(value, type=tuple[int, list[Change]])[1]
    except (msgspec.MsgspecError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored list of models is damaged: {error}") from None


class ModelLabels:
    """The models that made a window of a stream's timeline."""

    def __init__(self, changes: list[Change]) -> None:
        """Take the changes of the window's days, in order."""
        self._changes = changes
        self._seconds = [change[0] for change in changes]

    def each(self, start_s: int, step_s: int, count: int) -> list[tuple[str, ...]]:
        """Return what `between` returns for each of `count` stretches of `step_s`, the first of which begins at `start_s`."""
        first, end = bisect_left(self._seconds, start_s), bisect_left(self._seconds, start_s + count * step_s)
        found: list[tuple[str, ...]] = []
        for changed in (*dict.fromkeys((second - start_s) // step_s for second in self._seconds[first:end]), count):
            # Between two changes all stretches are alike.
            begin_s = start_s + len(found) * step_s
            found += [self.between(begin_s, begin_s + step_s)] * (changed - len(found))
            if changed < count:
                found.append(self.between(start_s + changed * step_s, start_s + (changed + 1) * step_s))
        return found

    def between(self, start_s: int, stop_s: int) -> tuple[str, ...]:
        """Return the models that classified frames from `start_s` until before `stop_s`, in order; at least one frame was."""
        first, end = bisect_left(self._seconds, start_s), bisect_left(self._seconds, stop_s)
        names = [change[2] for change in self._changes[first:end]]
        if first and (first == end or self._changes[first][1] >= start_s):
            names.insert(0, self._changes[first - 1][2])
        return tuple(dict.fromkeys(names))


def read_models(store: TimelineStore, stream_id: str, start_s: int, stop_s: int) -> ModelLabels:
    """Read which models made a window of a stream's timeline, seconds since the Unix epoch. Blocks on the store.

    Raises:
        StoreError: a stored value cannot be read.
    """
    return model_labels(store.read(*models_range(stream_id, start_s, stop_s)))


def models_range(stream_id: str, start_s: int, stop_s: int) -> BucketValueRange:
    """Return where the models of a window are stored."""
    return BucketValueRange(stream_id, MODELS_SERIES, MODELS_TIER_S, start_s // MODELS_TIER_S, -(-stop_s // MODELS_TIER_S))


def model_labels(days: list[tuple[int, bytes]]) -> ModelLabels:
    """Return what the stored days of a window say. Raises `StoreError` when one cannot be read."""
    return ModelLabels([change for _, value in days for change in unpack_models(value)])
