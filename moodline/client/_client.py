"""The client: everything that the HTTP API can do, as typed methods that block."""

from types import TracebackType
from typing import Final, Self

import httpx

from moodline.client._alerts import AlertMethods
from moodline.client._link import Link
from moodline.client._live import LiveMethods
from moodline.client._pictures import PictureMethods
from moodline.client._service import ServiceMethods
from moodline.client._streams import StreamMethods
from moodline.client._timelines import TimelineMethods
from moodline.shared.clock import Clock, SystemClock

TIMEOUT_S: Final = 30.0


class Client(StreamMethods, TimelineMethods, LiveMethods, PictureMethods, AlertMethods, ServiceMethods):
    """Asks one Moodline. A context manager, since it keeps connections open. Thread-safe.

    Every method raises `ApiError` (see `moodline.errors`), and `InvalidStreamError` for an id that no stream can have. Requests
    that change nothing are repeated up to twice when the connection breaks or the service is busy for a moment; others never
    are. The key is in no message, log line or `repr`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare to ask; nothing is sent yet. Proxies of the environment are not used.

        Args:
            url: Where the API is; default: the environment's MOODLINE_API_URL, else `http://127.0.0.1:8000`.
            key: API key; default: MOODLINE_API_KEY. Empty: none.
            timeout_s: Longest time for a connection to be made, and between two pieces of an answer.
            clock: For pauses; the machine's unless given.
            transport: How requests travel; a socket unless given.

        Raises:
            UnreachableError: the address is none.
            ClientError: the key cannot be one.
        """
        self._link = Link(url, key, timeout_s, clock or SystemClock(), transport)

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._link.place!r})"
