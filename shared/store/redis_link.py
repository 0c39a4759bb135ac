"""The connection to Redis: scripts by their hash, bounded retries, and Redis' errors as ours."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from redis import exceptions
from redis.cluster import RedisCluster

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError, StoreUnavailableError
from moodline.shared.store.redis_address import REFUSED, Client, SentinelRefusedError, parse_redis_url

Argument = str | bytes | int
Call = tuple[Argument, ...]
"""One command: its name and its arguments."""

_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)

_TROUBLE: Final = (exceptions.RedisError, exceptions.RedisClusterException)
"""Errors of redis-py; the second (a cluster is unavailable or lacks slots) is not a subclass of the first."""

_PASSING: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.AskError,
    exceptions.RedisClusterException,
)
_PASSING_CODES: Final = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"})


class Script:
    """A Lua script that Redis runs in one atomic step; called by its hash, sent whole where a server does not know it."""

    _texts: Final[dict[str, str]] = {}

    def __init__(self, name: str) -> None:
        text = (Path(__file__).parent / f"{name}.lua").read_text()
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._texts[self._digest] = text

    def call(self, keys: Sequence[Argument], arguments: Sequence[Argument]) -> Call:
        """Return the command that runs the script."""
        return ("EVALSHA", self._digest, len(keys), *keys, *arguments)

    @classmethod
    def whole(cls, call: Call) -> Call:
        """Return the same command with the script's text in place of its hash; the server knows the hash from then on."""
        return ("EVAL", cls._texts[str(call[1])], *call[2:])


class Replies(list[Any]):
    """Replies in the order of the calls. `repeated` is true when an earlier attempt may have had an effect already."""

    repeated = False


class RedisLink:
    """Sends commands, and repeats them for a few seconds while Redis is unavailable. Thread-safe.

    Every command given to `run` must be safe to repeat: an attempt whose answer was lost may have had its effect.
    """

    def __init__(self, url: str, clock: Clock, retry_s: float) -> None:
        """Remember where Redis is; the first command connects.

        Raises:
            SettingsError: the URL cannot be used.
        """
        self.address: Final = parse_redis_url(url)
        self.place: Final = self.address.place
        self._clock = clock
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._close_client: Callable[[], None] = _nothing
        self._closed = False

    def run(self, calls: Sequence[Call]) -> Replies:
        """Run commands in one round trip and return their replies.

        Commands are independent of each other: each is atomic by itself, all of them together are not.

        Raises:
            StoreUnavailableError: Redis is unavailable, starting, out of memory, or refuses this user.
            StoreError: Redis refused a command, or the store was closed.
        """
        give_up_s = self._clock.monotonic_s() + self._retry_s
        failures = 0
        while True:
            try:
                replies = self._attempt(calls)
            except _TROUBLE as error:
                if (refusal := _refusal(error)) is not None:
                    raise StoreUnavailableError(f"Redis at {self.place} refuses {refusal}") from error
                if not _is_passing(error):
                    raise StoreError(f"Redis at {self.place} refused a command: {error}") from error
                if self._clock.monotonic_s() >= give_up_s:
                    self._start_afresh()
                    raise StoreUnavailableError(f"Redis at {self.place} cannot be used: {_reason(error)}") from error
            else:
                replies.repeated = failures > 0
                return replies
            self._clock.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        with self._lock:
            self._closed = True
            self._client, close = None, self._close_client
            self._close_client = _nothing
        close()

    def _start_afresh(self) -> None:
        """Let the next attempt begin at the URL's nodes: those that a cluster had may all have gone, with new addresses."""
        with self._lock:
            if not isinstance(self._client, RedisCluster):
                return
            self._client, close = None, self._close_client
            self._close_client = _nothing
        close()

    def _attempt(self, calls: Sequence[Call]) -> Replies:
        client = self._connected()
        replies = _send(client, calls)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            for number, reply in zip(unknown, _send(client, [Script.whole(calls[number]) for number in unknown]), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _connected(self) -> Client:
        with self._lock:
            if self._closed:
                raise StoreError("the store was closed")
            if self._client is None:
                self._client, self._close_client = self.address.open()
            return self._client


def _send(client: Any, calls: Sequence[Call]) -> Replies:
    if len(calls) == 1:
        try:
            return Replies([client.execute_command(*calls[0])])
        except exceptions.NoScriptError as error:
            return Replies([error])
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.execute_command(*call)
    return Replies(pipeline.execute(raise_on_error=False))


def _nothing() -> None:
    """Close no client: there is none."""


def _refusal(error: BaseException | None) -> str | None:
    """Return what Redis refuses; None when the error is another. A cluster's client hides it as the cause of its own."""
    while error is not None:
        if isinstance(error, SentinelRefusedError):
            return "sentinel_username or sentinel_password, or its Sentinel does not let this user ask for the master"
        if isinstance(error, REFUSED):
            return "this user or password"
        error = error.__cause__
    return None


def _is_passing(error: Exception) -> bool:
    return isinstance(error, _PASSING) or str(error).partition(" ")[0] in _PASSING_CODES


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
