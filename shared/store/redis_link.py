"""The connection to Redis: one server or a cluster, scripts by their hash, bounded retries, and Redis' errors as ours."""

import hashlib
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from moodline.shared.clock import Clock
from moodline.shared.errors import SettingsError, StoreError, StoreUnavailableError

Argument = str | bytes | int
Call = tuple[Argument, ...]
"""One command: its name and its arguments."""

_Client = redis.Redis | RedisCluster

_CONNECT_TIMEOUT_S: Final = 2.0
_ANSWER_TIMEOUT_S: Final = 3.0
_DATABASE: Final = re.compile(r"/?([0-9]+)?")
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)

_REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
"""Retrying does not help, but an operator does, and the caller loses nothing by waiting for that."""

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
    """Sends commands, and repeats them for a few seconds while Redis is out of reach. Thread-safe.

    Every command given to `run` must be safe to repeat: an attempt whose answer was lost may have had its effect.
    """

    def __init__(self, url: str, clock: Clock, retry_s: float) -> None:
        """Remember where Redis is; the first command connects.

        Raises:
            SettingsError: the URL cannot be used.
        """
        try:
            parts = urlsplit(url)
            self.place: Final = f"{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"
            redis.ConnectionPool.from_url(url).close()
            usable = _DATABASE.fullmatch(parts.path) is not None
        except (ValueError, TypeError):
            usable = False
        if not usable:
            # Not chained: the original message may quote a piece of the password.
            raise SettingsError("the store URL cannot be used; write redis://[user:password@]host:port/db")
        self._url = url
        self._clock = clock
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._closed = False

    def run(self, calls: Sequence[Call]) -> Replies:
        """Run commands in one round trip and return their replies.

        Commands are independent of each other: each is atomic by itself, all of them together are not.

        Raises:
            StoreUnavailableError: Redis is out of reach, starting, out of memory, or refuses this user.
            StoreError: Redis refused a command, or the store was closed.
        """
        give_up_s = self._clock.monotonic_s() + self._retry_s
        failures = 0
        while True:
            try:
                replies = self._attempt(calls)
            except _REFUSED as error:
                raise StoreUnavailableError(f"Redis at {self.place} refuses this user or password") from error
            except exceptions.RedisError as error:
                if not _is_passing(error):
                    raise StoreError(f"Redis at {self.place} refused a command: {error}") from error
                if self._clock.monotonic_s() >= give_up_s:
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
            client, self._client = self._client, None
        if client is not None:
            client.close()

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

    def _connected(self) -> _Client:
        with self._lock:
            if self._closed:
                raise StoreError("the store was closed")
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> _Client:
        options: dict[str, Any] = {
            "protocol": 2,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_timeout": _ANSWER_TIMEOUT_S,
        }
        single = redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **options)
        if not _is_cluster(single):
            return single
        single.close()
        # One retry of its own: that is how the client learns which node has a slot now.
        return RedisCluster.from_url(self._url, retry=Retry(NoBackoff(), 1), **options)


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


def _is_cluster(client: Any) -> bool:
    try:
        info = client.execute_command("INFO", "cluster")
    except exceptions.NoPermissionError:
        return False
    return bool(int(info.get("cluster_enabled", 0)))


def _is_passing(error: exceptions.RedisError) -> bool:
    return isinstance(error, _PASSING) or str(error).partition(" ")[0] in _PASSING_CODES


def _reason(error: exceptions.RedisError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
