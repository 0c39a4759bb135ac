"""Finds the alerts that a rule would have raised over stored history, with the same evaluator and the same store."""

from typing import Final

from moodline.services.alerts.evaluator import AlertEvent, evaluate, first_state
from moodline.services.alerts.feed import seconds
from moodline.services.alerts.rules import Rule
from moodline.shared.errors import QueryError
from moodline.shared.store.base import TimelineStore
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import SECOND_US
from moodline.shared.timeline.tiers import Extent, Tiers

MAX_SECONDS: Final = 200_000
"""Most seconds of all streams together that one dry run evaluates."""


def dry_run(store: TimelineStore, rule: Rule, specs: list[StreamSpec], window: Extent | None) -> list[AlertEvent]:
    """Judge history from scratch, and return what would have happened, in order of time. Blocks on the store.

    Args:
        store: Where to read.
        rule: The rule.
        specs: The streams that it watches.
        window: Event time to evaluate; None: of each stream, all that is kept in seconds. An alert that fires at the end of it
            has no end in the answer.

    Raises:
        QueryError: the window begins before the kept seconds of a stream do, or there is too much to evaluate.
        StoreError: a stored value cannot be read.
    """
    spans = {spec.stream_id: _span(store, spec, window) for spec in specs}
    total = sum(len(span) for span in spans.values())
    if total > MAX_SECONDS:
        raise QueryError("from", f"this is {total} seconds of {len(specs)} streams; a dry run judges at most {MAX_SECONDS}")
    events: list[AlertEvent] = []
    for spec in specs:
        span = spans[spec.stream_id]
        if span:
            state = first_state(rule, spec.stream_id, span.start, spec.created_at_us)
            events += evaluate(rule, seconds(store, spec, state.at_s, span.stop), state)[1]
    return sorted(events, key=lambda event: (event.at_s, event.stream))


def _span(store: TimelineStore, spec: StreamSpec, window: Extent | None) -> range:
    tiers = Tiers(store, spec.stream_id)
    bounds = tiers.bounds(1)
    if window is None:
        return range(0) if bounds is None else range(bounds[0], bounds[1] + 1)
    start_s, stop_s = window.start_us // SECOND_US, -(-window.end_us // SECOND_US)
    if bounds is not None and not tiers.answers(1, window.start_us):
        raise QueryError("from", f"points of 1 s, which rules are judged on, of stream {spec.stream_id} are gone for this window")
    return range(start_s, stop_s)
