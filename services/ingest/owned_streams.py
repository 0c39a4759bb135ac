"""The streams of a worker's shards: what the registry says of them, and what is to be done with each.

A stream is looked at when there is a reason: its definition has changed, its shard has come, its reader has ended. Beyond that
all are looked at in turn, a tenth in each pass, for what nobody announces: a store that lost its last writes, another worker's
acquire. So the cost of a pass hardly depends on how many streams are registered and lie still.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from moodline.services.ingest.stream.plan import DesiredState, desired_state
from moodline.shared.clock import Clock
from moodline.shared.store import Standing, Store
from moodline.shared.store.registry_view import RegistryView
from moodline.shared.streams import StreamSpec, StreamStatus, is_pushed

ROUND_PASSES: Final = 10
"""In how many passes every stream is looked at once."""
_AT_LEAST: Final = 200
"""Streams that are looked at in every pass, where there are as many."""
_AT_ONCE: Final = 1000
"""Streams in one question to the store."""


class OwnedStreams:
    """Used by the worker's thread.

    Attributes:
        specs: Streams of the owned shards that ingest reads, oldest first; changed ones keep their places.
        pushed: Streams of the owned shards that nobody reads.
        wanted: Those of `specs` that are to be read.
        desired: What is to be done with each that was looked at.
    """

    def __init__(self, store: Store, clock: Clock, is_mine: Callable[[StreamSpec], bool]) -> None:
        """Prepare; `is_mine` says whether this worker reads a stream, and may say something else whenever shards move."""
        self.specs: dict[str, StreamSpec] = {}
        self.pushed: dict[str, StreamSpec] = {}
        self.wanted: dict[str, StreamSpec] = {}
        self.desired: dict[str, DesiredState] = {}
        self._store = store
        self._clock = clock
        self._is_mine = is_mine
        self._view = RegistryView(store)
        self._due: dict[str, None] = {}
        self._pending_update: list[str] = []

    def refresh(self, *, moved: bool) -> None:
        """Read which definitions have changed; with `moved`, find out again which are this worker's. Raises `StoreError`."""
        changed = self._view.refresh(self._clock.monotonic_s())
        if moved:
            changed |= self._view.specs.keys() | self.specs.keys() | self.pushed.keys()
        for name in sorted(changed, key=self._age):
            self._sort_in(name)

    def poll(self, ids: Iterable[str] = ()) -> dict[str, tuple[StreamStatus, Standing | None]]:
        """Look at the streams that are due, at `ids`, and at the next in turn; return what was found. Raises `StoreError`."""
        self._due.update(dict.fromkeys(name for name in ids if name in self.specs))
        self._due.update(dict.fromkeys(name for name in self._next_round_robin() if name in self.specs))
        found: dict[str, tuple[StreamStatus, Standing | None]] = {}
        names = list(self._due)
        for start in range(0, len(names), _AT_ONCE):
            chunk = names[start : start + _AT_ONCE]
            # A status is written after what it says is in the store, so it is read first.
            statuses = self._store.statuses(chunk)
            found.update(zip(chunk, zip(statuses, self._store.standings(chunk), strict=True), strict=True))
        for name, (status, standing) in found.items():
            self._decide(name, desired_state(self.specs[name], status, standing))
        self._due.clear()
        return found

    def pushed_in_pass(self) -> list[StreamSpec]:
        """Return the pushed streams among those whose turn it is in this pass; call it before `look`."""
        return [self.pushed[name] for name in self._pending_update[: self._share()] if name in self.pushed]

    def _age(self, name: str) -> tuple[int, str]:
        spec = self._view.specs.get(name)
        return (0 if spec is None else spec.created_at_us), name

    def _sort_in(self, name: str) -> None:
        spec, known = self._view.specs.get(name), self.specs.get(name)
        mine = spec is not None and self._is_mine(spec)
        # Whoever gets the frames of a pushed stream acquires it.
        if spec is not None and mine and is_pushed(spec.url):
            self.pushed[name] = spec
            mine = False
        else:
            self.pushed.pop(name, None)
        if spec is None or not mine:
            for kept in (self.specs, self.wanted, self.desired, self._due):
                kept.pop(name, None)
            return
        if spec == known:
            return
        if known is not None and known.created_at_us != spec.created_at_us:
            del self.specs[name]
        self.specs[name] = spec
        if name in self.wanted:
            self.wanted[name] = spec
        self._due[name] = None

    def _decide(self, name: str, desired: DesiredState) -> None:
        self.desired[name] = desired
        if desired is DesiredState.READ:
            self.wanted[name] = self.specs[name]
        else:
            self.wanted.pop(name, None)

    def _share(self) -> int:
        return max(_AT_LEAST, -(-(len(self.specs) + len(self.pushed)) // ROUND_PASSES))

    def _next_round_robin(self) -> list[str]:
        share = self._share()
        taken, self._pending_update = list(islice(self._pending_update, share)), self._pending_update[share:]
        if not self._pending_update:
            self._pending_update = [*self.specs, *self.pushed]
        return taken
