"""All definitions of streams in memory, kept up to date by reading only what has changed."""

from typing import Final

from moodline.shared.store.base import Registry
from moodline.shared.streams import StreamSpec

RELIST_S: Final = 600.0
"""All definitions are read again this often, whatever the changes say: a Redis cluster may lose a stream's last write alone."""


class RegistryView:
    """Used by one thread.

    Attributes:
        specs: All streams by id, as of the last `refresh`.
    """

    def __init__(self, registry: Registry) -> None:
        """Prepare; nothing is read yet."""
        self.specs: dict[str, StreamSpec] = {}
        self._registry = registry
        self._version: int | None = None
        self._relist_due_s = float("-inf")

    def refresh(self, monotonic_s: float) -> frozenset[str]:
        """Read what has changed since the last call; return the ids of streams that were added, changed or removed.

        Raises:
            StoreUnavailableError: nothing was taken over; the next call reads it.
        """
        since = None if monotonic_s >= self._relist_due_s else self._version
        version, changed = self._registry.changes(since)
        if changed is None:
            return self._relist(version, monotonic_s)
        if not changed:
            self._version = version
            return changed
        names = list(changed)
        for name, spec in zip(names, self._registry.get_many(names), strict=True):
            if spec is None:
                self.specs.pop(name, None)
            else:
                self.specs[name] = spec
        self._version = version
        return changed

    def _relist(self, version: int, monotonic_s: float) -> frozenset[str]:
        specs = {spec.stream_id: spec for spec in self._registry.list_streams()}
        known, self.specs = self.specs, specs
        self._version, self._relist_due_s = version, monotonic_s + RELIST_S
        return frozenset(name for name in known.keys() | specs.keys() if known.get(name) != specs.get(name))
