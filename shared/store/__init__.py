"""The store: `sqlite:///path` for one machine, `redis://host:port/db` for many. A URL chooses the adapter."""

from moodline.shared.errors import SettingsError
from moodline.shared.store.base import (
    Acquisition,
    ApplyResult,
    BucketValue,
    BucketValueRange,
    ConfigEntries,
    FrameFailure,
    HighWaterMark,
    Progress,
    ProgressStore,
    Registry,
    RegistryChanges,
    Retention,
    Standing,
    Store,
    TimelineStore,
    TimelineUpdate,
    VersionedEntries,
    VersionedEntry,
    dump,
)

__all__ = [
    "Acquisition",
    "ApplyResult",
    "BucketValue",
    "BucketValueRange",
    "ConfigEntries",
    "FrameFailure",
    "HighWaterMark",
    "Progress",
    "ProgressStore",
    "Registry",
    "RegistryChanges",
    "Retention",
    "Standing",
    "Store",
    "TimelineStore",
    "TimelineUpdate",
    "VersionedEntries",
    "VersionedEntry",
    "dump",
    "open_store",
]


def open_store(url: str, retention: Retention) -> Store:
    """Open the store that the URL names.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or one of Redis (`moodline.shared.store.redis_address`).
        retention: How long timeline bucket values are kept.

    Raises:
        SettingsError: the URL's scheme is unknown or the adapter's package is not installed.
        StoreUnavailableError: the store cannot be reached.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from moodline.shared.store.sqlite import SqliteStore

        return SqliteStore(url, retention)
    if scheme.partition("+")[0] in ("redis", "rediss"):
        try:
            from moodline.shared.store.redis import RedisStore
        except ModuleNotFoundError as error:
            raise SettingsError(f"redis:// needs the package {error.name}: pip install 'moodline[redis]'") from error
        return RedisStore(url, retention)
    raise SettingsError(f"store URL scheme {scheme!r} is unknown; use sqlite:///path or redis://host:port/0")
