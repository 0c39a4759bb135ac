"""Removing what alerts keep of a stream that is deleted: whoever registers its id next must find nothing of it."""

import json
from collections.abc import Iterator

from moodline.services.alerts.outbox import Delivery, DeliveryRecord
from moodline.services.alerts.records import ALERTS_LOG, DELIVERIES, DELIVERY_LOG, RULES, STATES, Saved, decode
from moodline.services.alerts.rules import Rule
from moodline.shared.store.base import VersionedEntries

_CHUNK = 1000


def purge_stream(store: VersionedEntries, stream_id: str) -> None:
    """Remove rules that name the stream, its alerts and their log, and webhooks on their way. Repeating it is no error.

    A rule that goes by a label stays: it is about other streams too.
    """
    rules = {each.key for each in store.list_entries(RULES) if decode(each.value, Rule).stream == stream_id}
    for rule_id in rules:
        store.remove_entry(RULES, rule_id)
    for each in store.list_entries(STATES):
        saved = decode(each.value, Saved)
        if saved.state.stream == stream_id or saved.rule in rules:
            store.remove_entry(STATES, each.key)
    events = {number: _event(value) for number, value in _records(store, ALERTS_LOG)}
    numbers = [number for number, (stream, _) in events.items() if stream == stream_id]
    ids = {events[number][1] for number in numbers}
    store.remove_records(ALERTS_LOG, numbers)
    for each in store.list_entries(DELIVERIES):
        delivery = decode(each.value, Delivery)
        if delivery.rule in rules or _event(delivery.body)[0] == stream_id:
            ids.add(delivery.event_id)
            store.remove_entry(DELIVERIES, each.key)
    attempts = ((number, decode(value, DeliveryRecord)) for number, value in _records(store, DELIVERY_LOG))
    store.remove_records(DELIVERY_LOG, [number for number, one in attempts if one.rule in rules or one.event in ids])


def _event(body: bytes) -> tuple[str, str]:
    """Return an event's stream and id."""
    payload = json.loads(body)
    return payload["stream"], payload["id"]


def _records(store: VersionedEntries, log: str) -> Iterator[tuple[int, bytes]]:
    after = 0
    while found := store.records(log, after, _CHUNK):
        yield from found
        after = found[-1][0]
