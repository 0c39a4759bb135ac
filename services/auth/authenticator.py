"""Finds out who opened a connection, and how often they may: by key, by session cookie, or because nobody is asked."""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from moodline.services.auth.audit import AuditWriter
from moodline.services.auth.callers import LOCAL, Caller
from moodline.services.auth.keyring import KeyRecord, Keyring
from moodline.services.auth.limits import Buckets
from moodline.services.auth.origins import is_loopback, is_own_page, one_host
from moodline.shared.clock import Clock
from moodline.shared.errors import RateLimitedError, SettingsError, UnauthorizedError
from moodline.shared.settings import ApiSettings
from moodline.shared.store.base import VersionedEntries

SESSION_COOKIE: Final = "moodline_session"
_TRUSTED_S: Final = 2.0
"""A key that was found good is not looked up again for so long; a removed one ends within this time on other machines."""
_REFUSED_S: Final = 10.0
"""A key that was found bad is not looked up again for so long. It may be good later: our clock was ahead, or the store behind."""
_KNOWN_LIMIT: Final = 4096
_LOOKUPS_AT_ONCE: Final = 4
"""Threads that look keys up, apart from those of all other work: unknown keys must not make other requests wait."""
_FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
"""Headers by which proxies say that they pass on what somebody else asked."""
_T = TypeVar("_T")
_FAILURES: Final = 10
_FAILURES_PER_S: Final = 1 / 6
"""Unknown keys that an address may send: 10 at once, and one more every 6 s."""


@dataclass(frozen=True, slots=True)
class _Credential:
    secret: str
    is_session: bool

    def digest(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()


class Authenticator:
    """Decides for one application. Coroutines belong to the event loop; `forget` may be called from any thread."""

    def __init__(
        self, store: VersionedEntries, settings: ApiSettings, clock: Clock, on_refused: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare; `on_refused` is called for every key that is not good."""
        self._on_refused = on_refused
        self.keyring: Final = Keyring(store, clock)
        self._settings = settings
        self._clock = clock
        self._is_loopback = is_loopback(settings.host)
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._open: tuple[bool, float] | None = None
        self._requests = Buckets(settings.rate_per_s, settings.rate_burst, clock)
        self._failures = Buckets(_FAILURES_PER_S, _FAILURES, clock)
        self._lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()
        self.audit: Final = AuditWriter(store, clock, settings.audit_keep_s)

    async def identify(self, connection: HTTPConnection) -> Caller:
        """Return who opened a connection, and count it as one request.

        Raises:
            UnauthorizedError: a key is needed and none is given, or not a good one.
            RateLimitedError: too many requests of this caller, or too many unknown keys from this address.
            StoreUnavailableError: keys cannot be looked up.
        """
        address = address_of(connection)
        try:
            caller = await self.check(connection)
        except UnauthorizedError:
            self._count(address)
            raise
        if caller is not LOCAL:
            self._count(f"key {caller.name}")
        elif not self._is_loopback:
            self._count(address)
        return caller

    async def check(self, connection: HTTPConnection) -> Caller:
        """Return who opened a connection, without counting: for asking again, while a long connection goes on.

        Raises as `identify` does, except that no number of requests is too many.
        """
        if await self._is_open_for(connection):
            return LOCAL
        credential = _credential(connection)
        if credential is None:
            raise UnauthorizedError("this service needs a key: send it as `Authorization: Bearer …`, or sign in on its page")
        digest = credential.digest()
        known = self._known.get(digest)
        if known is not None and self._clock.monotonic_s() - known[1] < _TRUSTED_S:
            return known[0]
        # Should keys be forgotten meanwhile, what was found is too: it goes into the former dictionary.
        remembered = self._known
        remembered.pop(digest, None)
        caller = await self._look_up(credential, address_of(connection))
        _remember(remembered, digest, (caller, self._clock.monotonic_s()))
        return caller

    def _limiter(self) -> CapacityLimiter:
        """Return the limit of this event loop: one that several share wakes nobody in another loop."""
        return self._lookups.setdefault(asyncio.get_running_loop(), CapacityLimiter(_LOOKUPS_AT_ONCE))

    def count_anonymous(self, connection: HTTPConnection) -> None:
        """Count a request to what needs no key, unless it can only be from this machine. Raises `RateLimitedError`."""
        if not self._is_loopback or _is_forwarded(connection):
            self._count(address_of(connection))

    async def _is_open_for(self, connection: HTTPConnection) -> bool:
        """Return whether no key is asked for."""
        if self._settings.access == "open":
            return True
        if self._settings.access == "keys" or not self._is_loopback:
            return False
        if _is_forwarded(connection):
            # A proxy on this machine brings others' requests here; that only this machine can reach the port says nothing then.
            return False
        now_s = self._clock.monotonic_s()
        if self._open is None or now_s - self._open[1] >= _TRUSTED_S:
            self._open = (not await run_in_threadpool(self.keyring.were_made), now_s)
        return self._open[0]

    async def sign_in(self, key: str, address: str) -> KeyRecord:
        """Return the record of a key that somebody signs in with. Raises as `identify` does."""
        return await self._holder(_Credential(key, is_session=False), address)

    def forget(self) -> None:
        """Look everything up again: a key was made or removed, or a session was closed."""
        self._known = OrderedDict()
        self._open = None

    async def _look_up(self, credential: _Credential, address: str) -> Caller:
        record = await self._holder(credential, address)
        await run_in_threadpool(self.keyring.record_use, record)
        return record.caller()

    async def _holder(self, credential: _Credential, address: str) -> KeyRecord:
        digest = credential.digest()
        refusal = UnauthorizedError(
            "the session is over; sign in again" if credential.is_session else "the key is not known here"
        )
        refused_s = self._refused.get(digest)
        if refused_s is None or self._clock.monotonic_s() - refused_s >= _REFUSED_S:
            find = self.keyring.session_holder if credential.is_session else self.keyring.holder
            # First of all the key is looked up: how many unknown ones came from an address says nothing about a good one.
            record = await to_thread.run_sync(find, credential.secret, limiter=self._limiter())
            if record is not None:
                self._refused.pop(digest, None)
                return record
            _remember(self._refused, digest, self._clock.monotonic_s())
        self._on_refused()
        if refused_s is not None:
            # Somebody who repeats what was good once is not guessing, and must not use up the tries of others at this address.
            raise refusal
        await run_in_threadpool(self.audit.refused, address)
        wait_s = self._failures.take(address)
        if wait_s:
            raise RateLimitedError("too many unknown keys came from this address", math.ceil(wait_s))
        raise refusal

    def _count(self, name: str) -> None:
        wait_s = self._requests.take(name)
        if wait_s:
            raise RateLimitedError("too many requests; slow down", math.ceil(wait_s))


def _remember(known: OrderedDict[str, _T], digest: str, value: _T) -> None:
    known[digest] = value
    known.move_to_end(digest)
    if len(known) > _KNOWN_LIMIT:
        known.popitem(last=False)


def require_access(store: VersionedEntries, settings: ApiSettings, clock: Clock) -> None:
    """Refuse to serve others than this machine without keys, unless that is asked for.

    Raises:
        SettingsError: says how to make a key.
    """
    if settings.access == "open" or (settings.access == "auto" and is_loopback(settings.host)):
        return
    if not Keyring(store, clock).exist():
        raise SettingsError(
            f"the API would listen on {settings.host} and there is no key: make one with "
            "`moodline keys add NAME --role admin`, or `--role viewer --stream ID --label KEY=VALUE` for one that may see "
            "some streams; or set MOODLINE_API_ACCESS=open to let everybody do everything"
        )


def _credential(connection: HTTPConnection) -> _Credential | None:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return _Credential(secret.strip(), is_session=False)
    session = connection.cookies.get(SESSION_COOKIE)
    # Pages of other sites, allowed ones included, bring a key of their own; they do not use the visitor's session.
    if session and is_own_page(connection.headers):
        return _Credential(session, is_session=True)
    return None


def _is_forwarded(connection: HTTPConnection) -> bool:
    """Return whether a proxy has passed a request on."""
    return any(name in connection.headers for name in _FORWARDING)


def address_of(connection: HTTPConnection) -> str:
    """Return what the limits of callers without a key go by: the address, or the network of 2**64 that one IPv6 host has."""
    return f"address {one_host(connection.client.host if connection.client else '-')}"
