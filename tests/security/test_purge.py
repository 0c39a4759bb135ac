"""Whoever registers the id of a stream that was deleted finds nothing of it, and neither does who reads the store's bytes."""

import json
from pathlib import Path

from moodline.services.alerts.evaluator import AlertEvent, EventKind, Reason, first_state
from moodline.services.alerts.outbox import Delivery, DeliveryRecord
from moodline.services.alerts.records import (
    ALERTS_LOG,
    DELIVERIES,
    DELIVERY_LOG,
    RULES,
    STATES,
    RuleBook,
    Saved,
    encode,
    event_json,
    state_key,
)
from moodline.services.alerts.rules import Rule, RuleKind, Webhook
from moodline.services.api import PREFIX
from moodline.services.auth.callers import Role
from moodline.services.live.feed import SubscribedStreams
from moodline.services.mqtt.bridge import RetainedState
from moodline.services.mqtt.topics import Topics
from moodline.shared.settings import ApiSettings
from moodline.shared.streams import StreamSpec
from tests.support.access import make_key, with_key
from tests.support.api import ApiWorld, smiling

CANARY = "canary"


def event(stream: str, number: int) -> AlertEvent:
    return AlertEvent(
        event_id=f"{CANARY if stream == 'lobby' else 'kept'}-{number}",
        rule="calm",
        stream=stream,
        kind=EventKind.FIRING,
        reason=Reason.CONDITION,
        at_s=1_777_636_800,
        since_s=1_777_636_800,
        value=None,
        baseline=None,
        faces=0,
        notify=True,
    )


def fill(world: ApiWorld, stream: str) -> None:
    rule = Rule(
        rule_id=f"of-{stream}",
        stream=stream,
        label=None,
        kind=RuleKind.NO_FACES,
        created_at_us=1,
        webhook=Webhook("https://x.example", f"{CANARY if stream == 'lobby' else 'kept'}-seal"),
    )
    if stream == "lobby":
        rule = Rule(**{name: getattr(rule, name) for name in rule.__struct_fields__} | {"note": f"{CANARY}-note"})
    RuleBook(world.store).add(rule)
    for number in range(3):
        body = event_json(event(stream, number), 1)
        world.store.append_record(ALERTS_LOG, body, 100)
        named = event(stream, number).event_id
        world.store.put_entry(
            DELIVERIES,
            named,
            encode(Delivery(event_id=named, rule="by-label", webhook=Webhook("https://x.example", "s"), body=body)),
            None,
        )
        record = DeliveryRecord(event=named, rule="by-label", outcome="retry", reason="", detail="", attempt=1, at_us=1)
        world.store.append_record(DELIVERY_LOG, encode(record), 100)
    state = first_state(rule, stream, 0, 1)
    world.store.put_entry(STATES, state_key(rule.rule_id, stream), encode(Saved(rule.rule_id, "c", state)), None)


def test_nothing_of_a_deleted_stream_is_found_by_the_next_who_has_its_id(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys")) as world:
        first, second = (with_key(world, make_key(world, name, Role.OPERATOR)) for name in ("first", "second"))
        for stream in ("lobby", "hall"):
            body = {"id": stream, "url": "clip.mp4", "labels": {"site": f"{CANARY}-label" if stream == "lobby" else "kept"}}
            assert first.post(f"{PREFIX}/streams", json=body).status_code == 201
            world.play(stream, [smiling()])
            fill(world, stream)
        files = list(tmp_path.glob("store.db*"))
        assert any(CANARY.encode() in path.read_bytes() for path in files)
        assert first.delete(f"{PREFIX}/streams/lobby").status_code == 204
        # The store's bytes, without a stop: the log of the database too.
        for path in tmp_path.glob("store.db*"):
            assert CANARY.encode() not in path.read_bytes(), path.name
        assert second.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 201
        for path in (
            "/alerts/log",
            "/alerts/rules",
            "/alerts",
            "/alerts/deliveries",
            "/streams/lobby",
            "/streams/lobby/timeline",
        ):
            answer = second.get(PREFIX + path, params={"stream": "lobby"} if path == "/alerts/log" else {})
            assert CANARY not in answer.text, path
        # The other stream's are all there.
        assert [each.key for each in world.store.list_entries(RULES)] == ["of-hall"]
        assert len(world.store.list_entries(DELIVERIES)) == 3
        assert {json.loads(value)["stream"] for _, value in world.store.records(ALERTS_LOG)} == {"hall"}
        assert len(world.store.records(DELIVERY_LOG)) == 3


def test_numbers_of_removed_records_are_not_given_again(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        numbers = [world.store.append_record("x", b"v", 10) for _ in range(3)]
        world.store.remove_records("x", [numbers[-1], 999])
        assert world.store.append_record("x", b"v", 10) == numbers[-1] + 1


def test_a_broker_that_was_away_while_a_stream_was_deleted_is_told_when_it_is_back() -> None:
    """What is retained there would stay for ever, and be told to whoever subscribes."""
    state = RetainedState(Topics("moodline", "homeassistant", "1"))
    front, yard = (StreamSpec(stream_id=name, url="rtsp://192.0.2.7/") for name in ("front", "yard"))
    state.take(SubscribedStreams({"front": front, "yard": yard}, 0, behind=False))
    dropped = state.take(SubscribedStreams({"yard": yard}, 0, behind=False))  # the broker is away
    state.take(SubscribedStreams({"front": front, "yard": yard}, 0, behind=False))  # somebody else's, of the same id
    back = state.everything()
    assert dropped
    assert back[: len(dropped)] == dropped
    assert all(message.payload == "" for message in dropped)
    assert all(message.payload != "" for message in back[len(dropped) :])
    assert not [message for message in state.everything() if message.payload == ""]
