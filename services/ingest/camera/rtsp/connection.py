"""An RTSP connection: requests with their answers, log-in, and what comes between them."""

import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from moodline.services.ingest.camera.input.arrival import ArrivalReader
from moodline.services.ingest.camera.input.authentication import Login, best_challenge
from moodline.services.ingest.camera.rtsp.wire import Interleaved, Response, Wire, format_request
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

POLL_S: Final = 0.25
"""Longest wait of one read or write, so that time-outs are noticed whatever the camera does."""

_READ_BYTES: Final = 64 * 1024
_EARLY_LIMIT_BYTES: Final = 4 * 1024 * 1024
_LOGIN_TRIES: Final = 3
_ASK_TO_LOG_IN: Final = frozenset({401, 403})
_REPEATED_S: Final = 0.7
"""An answer with an old number is taken for that to the last request when nothing more comes."""
_AGENT: Final = "Moodline"


class Connection:
    """One connection to a camera; used by one thread. Any other thread may shut the socket down, which ends all waiting."""

    def __init__(self, connected: socket.socket, login: Login | None) -> None:
        self.socket = connected
        self._login = login
        self._reader = ArrivalReader(connected)
        self._wire = Wire()
        self._sequence = 0
        self._early: deque[Interleaved] = deque()
        self._early_bytes = 0
        # A nonce of the connection before may be too old on this one.
        self._accepted = login is not None and login.challenge is not None
        self.is_refused = False
        """Whether the last answer was a refusal of the log-in."""
        self._has_read = False
        self._unanswered: set[str] = set()
        self._answered: set[str] = set()
        connected.settimeout(POLL_S)

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        deadline_s: float,
        will_do: Callable[[], bool] | None = None,
    ) -> Response:
        """Send a request and wait for its answer; log in when asked to. The answer may be of any status, 401 included.

        Args:
            method: Of the request.
            url: Of the request.
            headers: Of the request, without those that every request has.
            deadline_s: By the monotonic clock.
            will_do: Says, while there is no answer, whether what was asked for has happened; then that is the answer.

        Raises:
            SourceError: `timeout`, `unreachable` or `corrupt`.
        """
        sent_nonces: set[str] = set()
        for _ in range(_LOGIN_TRIES):
            self.send(method, url, headers)
            self._wire.expects_body = method == "DESCRIBE"
            response = self._answer(deadline_s, will_do)
            self.is_refused = response.status == 401
            if response.status not in _ASK_TO_LOG_IN:
                self._accepted |= response.status < 300 and self._login is not None and self._login.challenge is not None
                return response
            if not self._may_log_in(response, sent_nonces):
                return response
        return response

    def send(self, method: str, url: str, headers: dict[str, str]) -> None:
        """Send a request without waiting for its answer; blocks for `POLL_S` at most."""
        self._sequence += 1
        fields = {"CSeq": str(self._sequence), "User-Agent": _AGENT, **headers}
        authorization = self._login.header(method, url) if self._login else None
        if authorization is not None:
            fields["Authorization"] = authorization
        self._write(format_request(method, url, fields))

    def send_packet(self, channel: int, data: bytes) -> None:
        """Send a packet between requests."""
        self._write(b"$" + bytes((channel,)) + len(data).to_bytes(2, "big") + data)

    def challenge(self, response: Response) -> bool:
        """Take what a late 401 asks for; return whether it is worth to try again."""
        return self._may_log_in(response, set())

    def early(self) -> list[Interleaved]:
        """Return the packets that came before the answer to the last request, once."""
        packets = list(self._early)
        self._early.clear()
        self._early_bytes = 0
        return packets

    def receive(self) -> list[Interleaved | Response]:
        """Read once, for at most `POLL_S`, and return what is whole. Raises `SourceError` when the connection is over."""
        self._has_read = False
        try:
            data = self._reader.receive(_READ_BYTES)
        except TimeoutError:
            return []
        except OSError:
            raise _gone() from None
        if not data:
            raise _gone()
        self._has_read = True
        self._wire.feed(data)
        items = []
        while (item := self._wire.next_item()) is not None:
            items.append(item)
        return items

    @property
    def arrived_s(self) -> float:
        """Wall clock in s of the arrival of what was read last."""
        return self._reader.arrived_s

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        self.socket.close()

    def _may_log_in(self, response: Response, sent_nonces: set[str]) -> bool:
        if self._login is None:
            return False
        challenge = best_challenge(response.headers.get("www-authenticate", []))
        if challenge is None:
            return False
        before = self._login.challenge
        if challenge.nonce in sent_nonces or (before is not None and before.algorithm == "BASIC" == challenge.algorithm):
            return False
        # The same user and password with another nonce: only where the last was too old, or has been good for others.
        if before is not None and before.algorithm == challenge.algorithm and not (challenge.stale or self._accepted):
            return False
        sent_nonces.add(challenge.nonce)
        self._login.accept(challenge)
        return True

    def _answer(self, deadline_s: float, will_do: Callable[[], bool] | None) -> Response:
        number = str(self._sequence)
        heard_s = time.monotonic()
        repeated: Response | None = None
        while True:
            answer = None
            self.socket.settimeout(min(max(deadline_s - time.monotonic(), 0.01), POLL_S))
            # Media may follow the answer at once, so all of what came is looked at.
            items = self.receive()
            heard_s = time.monotonic() if items or self._has_read else heard_s
            if not items and (ended := self._wire.idle(time.monotonic() - heard_s)) is not None:
                items = [ended]
            for item in items:
                if isinstance(item, Interleaved):
                    self._keep(item)
                elif self._is_repeated(item):
                    repeated = item
                elif self._is_answer(item):
                    answer = item
            if repeated is not None and time.monotonic() - heard_s >= _REPEATED_S:
                # It was the answer: such a camera does not count.
                self._answered.clear()
                answer = answer or repeated
            if answer is not None:
                self.socket.settimeout(POLL_S)
                return answer
            if will_do is not None and will_do():
                self._unanswered.add(number)
                self.socket.settimeout(POLL_S)
                return Response(200, {}, b"")
            if time.monotonic() >= deadline_s:
                self._unanswered.add(number)
                self.socket.settimeout(POLL_S)
                raise SourceError(FailureReason.TIMEOUT, "the camera does not answer")

    @property
    def has_early(self) -> bool:
        """Return whether packets came before the answer to a request."""
        return bool(self._early)

    def _is_repeated(self, response: Response) -> bool:
        """Return whether it seems to be once more the answer to a request before, from a camera that has counted right so far."""
        number = (response.header("cseq") or "").strip()
        return number in self._answered and number != str(self._sequence)

    def _is_answer(self, response: Response) -> bool:
        """Return whether it answers the last request. There is one at a time, so a number that makes no sense is no matter."""
        if response.status < 200:
            return False
        number = (response.header("cseq") or "").strip()
        if number in self._unanswered and number != str(self._sequence):
            self._unanswered.discard(number)
            return False
        if number == str(self._sequence):
            self._answered.add(number)
        return True

    def _keep(self, packet: Interleaved) -> None:
        self._early.append(packet)
        self._early_bytes += len(packet.data)
        while self._early_bytes > _EARLY_LIMIT_BYTES:
            self._early_bytes -= len(self._early.popleft().data)

    def _write(self, data: bytes) -> None:
        try:
            # All requests fit into the socket's buffer: a camera that does not read for a while is no reason to wait.
            self.socket.sendall(data)
        except TimeoutError:
            raise SourceError(FailureReason.TIMEOUT, "the camera takes no requests") from None
        except OSError:
            raise _gone() from None


def _gone() -> SourceError:
    return SourceError(FailureReason.UNREACHABLE, "the camera closed the connection, or it broke")
