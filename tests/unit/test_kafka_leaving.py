"""A member leaves its group before its client is closed, whatever state it is in."""

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from moodline.shared.bus import kafka_membership
from moodline.shared.bus.kafka_membership import Membership
from moodline.shared.bus.kafka_settings import KafkaAddress


class StubClient:
    """A client that has left after some polls; it records what it is asked for."""

    def __init__(self, polls: int, *, broken: bool = False) -> None:
        self.polls_left, self.broken = polls, broken
        self.calls: list[str] = []
        self.closed = threading.Event()

    def subscribe(self, topics: list[str], **_: Any) -> None:
        self.calls.append("subscribe")

    def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")
        if self.broken:
            raise KafkaException(KafkaError(KafkaError._STATE))

    def poll(self, timeout_s: float) -> None:
        self.calls.append("poll")
        self.polls_left -= 1

    def memberid(self) -> str:
        return "member" if self.polls_left > 0 else ""

    def assignment(self) -> list[int]:
        return [0] if self.polls_left > 1 else []

    def close(self) -> None:
        self.calls.append("close")
        self.closed.set()


def left(monkeypatch: pytest.MonkeyPatch, client: StubClient) -> list[str]:
    monkeypatch.setattr(kafka_membership, "open_client", lambda *_: client)
    monkeypatch.setattr(kafka_membership, "StartOffsets", lambda *_: StubClient(0))
    member = Membership(KafkaAddress("127.0.0.1:1", {}), {}, "t", lambda _: None)
    member.retire()
    assert client.closed.wait(20)
    return client.calls


def test_the_client_is_closed_after_it_has_left_and_what_waits_was_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(monkeypatch, StubClient(3)) == ["subscribe", "unsubscribe", "poll", "poll", "poll", "close"]


def test_a_client_that_is_in_no_group_is_polled_once_before_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(monkeypatch, StubClient(0)) == ["subscribe", "unsubscribe", "poll", "close"]


def test_a_client_that_cannot_leave_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_membership, "_LEAVE_S", 0.05)
    assert left(monkeypatch, StubClient(10**9))[-1] == "close"
    assert left(monkeypatch, StubClient(0, broken=True)) == ["subscribe", "unsubscribe", "close"]
