"""Listening to live answers: over HTTP as a browser does, and in process."""

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from moodline.services.live.subscription import Sent, Subscription
from tests.support.servers import wait_until

_PATIENCE_S = 30.0


class Heard(NamedTuple):
    """One event as it came."""

    event: str
    id: str
    data: dict[str, Any]

    @property
    def start(self) -> str:
        """Of a point: where it begins."""
        return str(self.data["point"]["start"])


class Listening:
    """Reads `GET /api/v1/events` in a thread. A context manager; leaving closes the connection."""

    def __init__(self, url: str, headers: dict[str, str] | None = None, **parameters: Any) -> None:
        self.heard: list[Heard] = []
        self.comments = 0
        self.status = 0
        self.has_ended = False
        self._client = httpx.Client(base_url=url, timeout=_PATIENCE_S)
        self._ask = {"url": "/api/v1/events", "params": parameters, "headers": headers or {}}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._answer: httpx.Response | None = None
        self._is_left = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_left = True
        if not self.has_ended:
            # The thread waits for bytes: it is the socket that must end.
            wait_until(lambda: self._answer is not None or self.has_ended, _PATIENCE_S, "the answer to begin")
            assert self._answer is not None
            self._answer.extensions["network_stream"].get_extra_info("socket").shutdown(2)
        self._thread.join(_PATIENCE_S)
        self._client.close()

    def wait(self, count: int, event: str = "point", **fields: Any) -> list[Heard]:
        """Wait until so many events of a kind have come, and return all of them."""
        wait_until(lambda: len(self.of(event, **fields)) >= count, _PATIENCE_S, f"{count} x {event} of {self.heard}")
        return self.of(event, **fields)

    def of(self, event: str, **fields: Any) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.event == event and fields.items() <= heard.data.items()]

    def wait_for_end(self) -> None:
        wait_until(lambda: self.has_ended, _PATIENCE_S, "the answer to end")

    def _read(self) -> None:
        try:
            with self._client.stream("GET", **self._ask) as answer:
                self._answer, self.status = answer, answer.status_code
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if line.startswith(":"):
                        self.comments += 1
                    elif line:
                        fields[name] = value
                    elif "event" in fields:
                        self.heard.append(Heard(fields["event"], fields.get("id", ""), json.loads(fields["data"])))
                        fields = {}
                    else:
                        fields = {}
        except httpx.HTTPError:
            assert self._is_left, "the connection broke"
        finally:
            self.has_ended = True


async def take(subscription: Subscription, count: int, event: str = "point") -> list[Sent]:
    """Return all events up to the one with which there are `count` of a kind."""
    heard: list[Sent] = []
    batches = subscription.batches()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for batch in batches:
                heard += batch
                if sum(sent.event == event for sent in heard) >= count:
                    return heard
    finally:
        await batches.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
    raise AssertionError(f"ended after {heard}")
