"""Requests to the API: one connection pool, one form of errors; requests that are safe to repeat are repeated."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from moodline.errors import ApiError, BadAnswerError, ClientError, NoAnswerError, UnreachableError, error_of
from moodline.shared.clock import Clock

PREFIX: Final = "/api/v1"
DEFAULT_URL: Final = "http://127.0.0.1:8000"

_RETRIES: Final = 2
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_SAFE: Final = frozenset({"GET"})
_PASSING: Final = frozenset({"rate_limited", "too_busy", "store_unavailable"})
"""Refusals that may be over in a moment."""

_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)
_ADDRESS: Final = "the API's address is not a URL such as http://127.0.0.1:8000; check MOODLINE_API_URL"

_Answer = TypeVar("_Answer")


class _Problem(msgspec.Struct):
    code: str
    message: str
    field: str | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Problem


class Link:
    """Asks one API. Thread-safe as httpx's client is."""

    def __init__(
        self, url: str | None, key: str | None, timeout_s: float, clock: Clock, transport: httpx.BaseTransport | None
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Raises:
            UnreachableError: the address is none.
            ClientError: the key cannot be one.
        """
        address = _parsed(os.environ.get("MOODLINE_API_URL") or DEFAULT_URL if url is None else url)
        secret = os.environ.get("MOODLINE_API_KEY") or None if key is None else key or None
        if secret is not None and not _KEY.fullmatch(secret):
            raise ClientError("this is no API key: it has characters that keys never have; check MOODLINE_API_KEY")
        if secret is not None and address.userinfo:
            raise ClientError("give a key, or user and password in the address, not both; check MOODLINE_API_URL")
        # Out of the address, so that no log of a request shows it.
        login = httpx.BasicAuth(address.username, address.password) if address.userinfo else None
        bare = address.copy_with(userinfo=b"")
        self.place = str(bare)
        self.clock = clock
        self.timeout_s = timeout_s
        self.key = secret
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        self._http = httpx.Client(
            base_url=bare, timeout=timeout_s, transport=transport, trust_env=False, auth=login, headers=headers
        )

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._http.close()

    def ask(self, kind: type[_Answer], method: str, path: str, **arguments: Any) -> _Answer:
        """Send a request below `PREFIX` and return its answer as `kind`. `arguments` are httpx's. Raises `ApiError`."""
        return self.decoded(self.send(method, PREFIX + path, **arguments), kind)

    def decoded(self, answer: httpx.Response, kind: type[_Answer]) -> _Answer:
        """Return the body of an answer as `kind`. Raises `BadAnswerError`."""
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self.bad_answer(answer.status_code) from None

    def send(self, method: str, path: str, *, repeats: bool = True, **arguments: Any) -> httpx.Response:
        """Send a request and return its answer, which is a success. Repeats only requests that change nothing.

        Raises:
            ApiError: the API refused, failed, or was not there.
        """
        retries = _RETRIES if repeats and method in _SAFE else 0
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._send(method, path, **arguments)
            except ApiError as error:
                if retries == 0 or not _may_pass(error):
                    raise
                wait_s = min(error.retry_after_s or pause_s, _LONGEST_PAUSE_S)
            retries, pause_s = retries - 1, pause_s * 2
            self.clock.sleep(wait_s)

    @contextmanager
    def stream(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        """Yield an answer whose body is read as it comes. Never repeated. Raises `ApiError`."""
        with self._explained(), self._http.stream(method, path, **arguments) as answer:
            if not answer.is_success:
                answer.read()
                raise self._error(answer)
            yield answer

    def bad_answer(self, status: int) -> BadAnswerError:
        """Return the error for an answer that no Moodline of this version gives."""
        return BadAnswerError(
            "bad_answer",
            f"what answers at {self.place} is no Moodline of this version (HTTP status {status}); check MOODLINE_API_URL",
            status=status,
        )

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self._explained():
            answer = self._http.request(method, path, **arguments)
        if answer.is_success:
            return answer
        raise self._error(answer)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise NoAnswerError("unreachable", f"Moodline at {self.place} did not answer within {self.timeout_s:g} s") from None
        except httpx.ConnectError as error:
            raise UnreachableError("unreachable", self._why_not(error)) from None
        except (httpx.TransportError, httpx.StreamError):
            raise UnreachableError(
                "unreachable", f"Moodline at {self.place} broke off; it may be starting again, so try once more"
            ) from None
        except httpx.DecodingError:
            raise self.bad_answer(200) from None

    def _why_not(self, error: httpx.ConnectError) -> str:
        if "CERTIFICATE" in str(error).upper():
            return f"the certificate of {self.place} is not valid for its name, or not known here (SSL_CERT_FILE)"
        return f"no Moodline answers at {self.place}; start it with `moodline run`, or set MOODLINE_API_URL to where it runs"

    def _error(self, answer: httpx.Response) -> ApiError:
        try:
            problem = msgspec.json.decode(answer.content, type=_ErrorAnswer).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self.bad_answer(answer.status_code)
        return error_of(problem.code, problem.message, problem.field, answer.status_code, _retry_after_s(answer.headers))


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise UnreachableError("unreachable", _ADDRESS) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UnreachableError("unreachable", _ADDRESS)
    return url


def _may_pass(error: ApiError) -> bool:
    # A silent service was waited for already.
    is_broken = isinstance(error, UnreachableError) and not isinstance(error, NoAnswerError)
    return is_broken or error.code in _PASSING


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
