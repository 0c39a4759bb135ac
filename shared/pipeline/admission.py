"""Admission of live messages: a stage works on fresh ones only, and treats streams fairly.

While a stage keeps up, everything is processed. When it cannot, it serves short slices: what has just come in is taken whole,
the streams that have had least are served first, each with its newest message, and the rest is passed on as `overloaded`. So
what is processed is young, however long the overload lasts, and every stream loses evenly.

The order among streams is that of start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queuing", 1996): each stream
has a tag that grows by the cost of what it was given; the least tag goes first. Here a tag may lag behind the greatest by a few
large messages only, so a stream that was quiet cannot hold up the others for long when it comes back.

Nothing here reads a clock: ages and measured times come in.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from moodline.shared.messages import DropReason, Message, StreamClass

LIVE_BATCH: Final = 256
"""Most messages of a batch with live ones. Large, because only what a batch holds can be compared."""

FILE_BATCH_S: Final = 0.2
"""Longest time for the file messages of a batch, in s. A live message may wait for one batch and share the next: twice this."""

_SLICE_S: Final = 0.25
_SLICES_IN_BUDGET: Final = 8
_FIRST_ROUND_S: Final = 0.02
_NEWEST_SHARE: Final = 0.25
_CREDIT: Final = 8


class ServiceTime:
    """An estimate of how long work takes: units go through in rounds of up to `width`, each of the same length.

    Args:
        width: Units that are done at the same time: threads, or the fixed batch of a network.
        round_s: First guess of a round's length, in s, until something has been measured.
    """

    def __init__(self, width: int, round_s: float = _FIRST_ROUND_S) -> None:
        self.width = width
        self.round_s = round_s
        self.measured = False

    def seconds(self, units: int) -> float:
        """Return how long `units` take, in s."""
        return -(-units // self.width) * self.round_s

    def units_within(self, seconds: float) -> int:
        """Return how many units are done in `seconds`; at least one round of them, and no more until one was measured."""
        if not self.measured:
            return self.width
        # Times of 0 do happen with a coarse timer; a bound keeps the answer finite.
        rounds = math.floor(seconds / max(self.round_s, 1e-6) + 1e-9)
        return max(1, rounds) * self.width

    def observe(self, units: int, elapsed_s: float) -> None:
        """Take into account that `units` (more than 0) have just taken `elapsed_s`: an exponentially weighted mean."""
        measured_s = max(0.0, elapsed_s) / -(-units // self.width)
        # A guess has no weight against what was seen.
        self.round_s += (_NEWEST_SHARE if self.measured else 1.0) * (measured_s - self.round_s)
        self.measured = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live message that wants to be processed.

    Attributes:
        stream_id: Its stream.
        age_s: Since it was captured, in s. Below 0 (the clocks of two machines differ) counts as 0.
        cost: Units of work that it takes; 0 is never shed.
    """

    stream_id: str
    age_s: float
    cost: int = 1


class Admission:
    """Decides what a stage processes. Keeps, for streams that were served in an overload, how much they had.

    Args:
        budget_s: Age budget in s, as counted from capture. What is older is `expired`.
        share: Share of the budget, 0 to 1, within which this stage wants to be done; the rest is for the stages after it.
        service: How long work takes; the stage lets it measure.
    """

    def __init__(self, budget_s: float, share: float, service: ServiceTime) -> None:
        self._budget_s = budget_s
        self._done_by_s = budget_s * share
        # Catching up after a pause may use half of what is left to the others: they were idle meanwhile.
        self._caught_up_by_s = budget_s * (1 + share) / 2
        self._slice_s = min(_SLICE_S, budget_s / _SLICES_IN_BUDGET)
        self._service = service
        self._overloaded = False
        self._tags: dict[str, int] = {}
        self._floor = 0

    def decide(self, batch: Sequence[Candidate], idle_s: float, busy_units: int = 0) -> list[DropReason | None]:
        """Decide for each message of a batch: None to process it, else why not.

        Args:
            batch: In the order of the bus, so that the last message of a stream is its newest.
            idle_s: How long the stage had nothing to do before this batch, in s.
            busy_units: Work that is in the batch in any case (file messages).
        """
        reasons: list[DropReason | None] = [DropReason.EXPIRED if message.age_s > self._budget_s else None for message in batch]
        wanted = [index for index, message in enumerate(batch) if reasons[index] is None and message.cost]
        chosen = self._chosen(batch, wanted, idle_s, busy_units)
        for index in set(wanted).difference(chosen):
            reasons[index] = DropReason.OVERLOADED
        self._charge([batch[index] for index in chosen])
        return reasons

    def _chosen(self, batch: Sequence[Candidate], wanted: list[int], idle_s: float, busy_units: int) -> list[int]:
        total_s = self._service.seconds(busy_units + sum(batch[index].cost for index in wanted))
        # A frame that still has time to wait is not overloaded, however many arrive now.
        if total_s <= self._slice_s or idle_s > self._slice_s / 2:
            self._overloaded = False
        if total_s <= self._slice_s:
            return wanted
        if not self._overloaded:
            oldest_s = max((batch[index].age_s for index in wanted), default=0.0)
            if oldest_s + total_s <= self._done_by_s:
                return wanted
            # Frames that took longer to arrive than to process are the backlog of a pause, not a lasting overload.
            if total_s < oldest_s and (kept := self._in_time(batch, wanted, busy_units)):
                return kept
        self._overloaded = True
        return self._fair(batch, wanted, busy_units)

    def _in_time(self, batch: Sequence[Candidate], wanted: list[int], busy_units: int) -> list[int]:
        """Return all but the oldest messages: as many as are done in time together."""
        units = busy_units
        for count, index in enumerate(youngest := sorted(wanted, key=lambda index: batch[index].age_s)):
            units += batch[index].cost
            if batch[index].age_s + self._service.seconds(units) > self._caught_up_by_s:
                return youngest[:count]
        return youngest

    def _fair(self, batch: Sequence[Candidate], wanted: list[int], busy_units: int) -> list[int]:
        """Return a slice's worth of messages, from the streams that had least."""
        fresh = [index for index in wanted if batch[index].age_s <= self._done_by_s - self._slice_s]
        width = self._service.width
        # Where nothing is fresh, either younger messages wait behind these and must be reached soon, or all messages come late.
        room = max(width, self._service.units_within(self._slice_s) - busy_units) if fresh else width
        waiting: dict[str, list[int]] = {}
        for index in fresh or wanted:
            waiting.setdefault(batch[index].stream_id, []).append(index)
        queue = [(self._tags.get(stream, self._floor), indices[0], stream) for stream, indices in waiting.items()]
        heapq.heapify(queue)
        chosen: list[int] = []
        while queue:
            tag, turn, stream = heapq.heappop(queue)
            index = waiting[stream].pop()
            cost = batch[index].cost
            if chosen and cost > room:
                continue  # its tag stays, so it is among the first in the next slice
            chosen.append(index)
            room -= cost
            if waiting[stream]:
                heapq.heappush(queue, (tag + cost, turn, stream))
        return chosen

    def _charge(self, served: Sequence[Candidate]) -> None:
        """Raise the tags of the streams that are served, and the floor, below which no tag may lag."""
        for message in served:
            self._tags[message.stream_id] = self._tags.get(message.stream_id, self._floor) + message.cost
        if served:
            highest = max(self._tags[message.stream_id] for message in served)
            self._floor = max(self._floor, highest - _CREDIT * max(message.cost for message in served))
            # A tag at the floor says no more than none does.
            self._tags = {stream: tag for stream, tag in self._tags.items() if tag > self._floor}


class BatchAdmission:
    """Admission of the live messages of a stage's batches, and how large its batches may be.

    Args:
        live_topic: The topic that live messages come from.
        budget_s: Age budget in s, as counted from capture.
        share: Share of the budget, 0 to 1, within which this stage wants to be done.
        width: Units that are done at the same time.
        timer: Returns seconds; how long the stage was idle is measured with it.
    """

    def __init__(self, live_topic: str, budget_s: float, share: float, width: int, timer: Callable[[], float]) -> None:
        self.service = ServiceTime(width)
        self._live_topic = live_topic
        self._admission = Admission(budget_s, share, self.service)
        self._timer = timer
        self._idle_since_s = timer()

    def drops(self, messages: Sequence[Message], cost: Callable[[Message], int], now_s: float) -> list[DropReason | None]:
        """Return for each message why it is not worth the work, None if it is.

        Args:
            messages: A batch, in the order of the bus.
            cost: Returns the units of work in a message; messages without any are never skipped, nor are those of files.
            now_s: Wall clock, seconds since the Unix epoch.
        """
        costs = [cost(message) for message in messages]
        live = [index for index, message in enumerate(messages) if costs[index] and message.lane is StreamClass.LIVE]
        candidates = [
            Candidate(messages[index].stream_id, max(0.0, now_s - messages[index].captured_at_us / 1e6), costs[index])
            for index in live
        ]
        of_files = sum(costs) - sum(candidate.cost for candidate in candidates)
        drops: list[DropReason | None] = [None] * len(messages)
        reasons = self._admission.decide(candidates, self._timer() - self._idle_since_s, of_files)
        for index, reason in zip(live, reasons, strict=True):
            drops[index] = reason
        return drops

    def idle(self) -> None:
        """Record that the stage is done with a batch."""
        self._idle_since_s = self._timer()

    def batch_limit(self, name: str, most: int, units_per_message: float = 1.0) -> int:
        """Return how large a batch may be that takes a record of a topic: many live ones, but few of files.

        Args:
            name: The topic.
            most: Most messages of files.
            units_per_message: Mean work in one.
        """
        if name == self._live_topic:
            # How many can be done is known after the first round only.
            return LIVE_BATCH if self.service.measured else self.service.width
        return min(most, int(self.service.units_within(FILE_BATCH_S) / units_per_message))
