"""Rules in event time: what fires, what does not, and that neither batches nor restarts can be seen in the events."""

import itertools
import random
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.alerts.evaluator import (
    AlertEvent,
    AlertState,
    EventKind,
    Reason,
    Second,
    evaluate,
    first_state,
    trimmed_mean,
)
from moodline.services.alerts.rules import Direction, Rule, RuleKind, checked_rule
from moodline.shared.errors import InvalidRuleError

START = 1_777_636_800
HAPPY = 3
SHARE = Rule(
    rule_id="glad",
    stream="lobby",
    kind=RuleKind.SHARE,
    emotion="happy",
    threshold=0.7,
    clear_threshold=0.5,
    for_s=5,
    clear_for_s=5,
    window_s=1,
    min_faces=5,
    no_data_s=20,
    quiet_s=0,
)


def rule(**changes: object) -> Rule:
    return checked_rule(msgspec.structs.replace(SHARE, **changes))


def mood(at: int, hits: int, faces: int = 10) -> Second:
    """A second of ten looked-at frames in which `hits` of `faces` faces are happy."""
    return Second(START + at, 10, 10, faces, tuple(hits if n == HAPPY else faces - hits if n == 6 else 0 for n in range(7)))


def moods(values: Iterable[int | None], begin: int = 0) -> list[Second]:
    """One second for each: happy faces of ten, or None where nobody is there."""
    return [Second(START + at, 10, 10) if value is None else mood(at, value) for at, value in enumerate(values, begin)]


def judge(judged: Rule, points: Sequence[Second]) -> list[AlertEvent]:
    return evaluate(judged, points, first_state(judged, "lobby", START))[1]


def said(events: list[AlertEvent]) -> list[tuple[str, int]]:
    return [(event.kind.value, event.at_s - START) for event in events]


def test_a_share_fires_after_its_time_and_ends_after_its_time() -> None:
    events = judge(SHARE, moods([8] * 10 + [3] * 10))
    assert said(events) == [("firing", 5), ("resolved", 15)]
    assert (events[0].value, events[0].since_s, events[0].faces) == (0.8, START, 10)
    assert events[1].reason is Reason.CLEARED
    assert events[0].event_id != events[1].event_id


def test_one_second_below_begins_the_time_anew() -> None:
    assert said(judge(SHARE, moods([8] * 4 + [6] + [8] * 4))) == []
    assert said(judge(SHARE, moods([8] * 4 + [6] + [8] * 5))) == [("firing", 10)]


def test_exactly_the_threshold_is_not_beyond_it_and_exactly_the_clear_one_is_clear() -> None:
    assert judge(SHARE, moods([7] * 30)) == []
    assert said(judge(SHARE, moods([8] * 5 + [5] * 5))) == [("firing", 5), ("resolved", 10)]


def test_between_the_thresholds_a_firing_alert_goes_on() -> None:
    assert said(judge(SHARE, moods([8] * 5 + [6, 4, 4, 4, 4, 6] * 20))) == [("firing", 5)]


def test_too_few_faces_are_no_answer() -> None:
    crowd = [mood(at, 3, 3) for at in range(30)]
    assert judge(SHARE, crowd) == []
    assert said(judge(rule(window_s=2), crowd)) == [("firing", 6)], "two seconds have enough of them"


def test_a_short_time_without_an_answer_neither_ends_nor_begins_anything() -> None:
    assert said(judge(SHARE, moods([8, 8, None, None, 8]))) == [("firing", 5)]
    assert said(judge(SHARE, moods([8] * 5 + [None] * 10 + [8] * 5))) == [("firing", 5)]


def test_a_long_time_without_an_answer_ends_it() -> None:
    events = judge(SHARE, moods([8] * 5 + [None] * 40))
    assert said(events) == [("firing", 5), ("resolved", 25)]
    assert events[1].reason is Reason.NO_DATA
    assert judge(SHARE, moods([8] * 4 + [None] * 40 + [8] * 4)) == [], "what was pending is forgotten"


def test_under_a_threshold() -> None:
    under = rule(direction=Direction.UNDER, threshold=0.2, clear_threshold=0.4)
    assert said(judge(under, moods([1] * 6 + [3] * 9 + [4] * 5))) == [("firing", 5), ("resolved", 20)]


def test_within_the_quiet_time_nobody_is_told_again() -> None:
    events = judge(rule(quiet_s=25), moods(([8] * 6 + [2] * 6) * 4))
    assert said(events) == [
        ("firing", 5),
        ("resolved", 11),
        ("firing", 17),
        ("resolved", 23),
        ("firing", 29),
        ("resolved", 35),
        ("firing", 41),
        ("resolved", 47),
    ]
    assert [event.notify for event in events] == [True, True, False, False, False, False, True, True]


def test_nobody_there() -> None:
    empty = rule(kind=RuleKind.NO_FACES, emotion=None)
    assert said(judge(empty, moods([None] * 6 + [5] * 6))) == [("firing", 5), ("resolved", 11)]
    unseen = [Second(START + at, 10, 0) for at in range(40)]
    assert judge(empty, unseen) == [], "frames that nobody looked at say nothing about faces"


def test_a_camera_that_sends_nothing() -> None:
    offline = rule(kind=RuleKind.OFFLINE, emotion=None)
    absent = [Second(START + at) for at in range(10)]
    assert said(judge(offline, [*absent, *moods([None] * 5, 10)])) == [("firing", 5), ("resolved", 15)]
    assert said(judge(offline, [Second(START + at, 10, 0) for at in range(40)])) == [], "overload is no absence"
    assert judge(offline, [point._replace(observed=False) for point in absent]) == [], "nothing was to come in a pause"


def test_seconds_that_are_left_out_count_as_empty() -> None:
    offline = rule(kind=RuleKind.OFFLINE, emotion=None)
    assert said(judge(offline, [mood(0, 5), mood(9, 5)])) == [("firing", 6)]


CHANGE = rule(kind=RuleKind.CHANGE, threshold=30.0, clear_threshold=10.0, baseline_s=600, baseline_min=5, no_data_s=600)


def test_a_change_is_measured_against_what_was_usual() -> None:
    usual = [2, 3] * 300
    events = judge(CHANGE, moods([*usual, *[8] * 20, *usual[:30]]))
    assert said(events) == [("firing", 605), ("resolved", 625)]
    assert events[0].value == pytest.approx(55.0)
    assert events[0].baseline == pytest.approx(0.25)


def test_a_fall_and_either() -> None:
    values = [8] * 600 + [2] * 20 + [8] * 20
    assert said(judge(msgspec.structs.replace(CHANGE, direction=Direction.UNDER), moods(values))) == [
        ("firing", 605),
        ("resolved", 625),
    ]
    assert said(judge(msgspec.structs.replace(CHANGE, direction=Direction.EITHER), moods(values))) == [
        ("firing", 605),
        ("resolved", 625),
    ]
    assert judge(CHANGE, moods(values)) == []


def test_without_enough_usual_time_nothing_is_a_change() -> None:
    assert judge(CHANGE, moods([2] * 240 + [9] * 30)) == []


def test_a_few_wild_minutes_do_not_move_the_baseline() -> None:
    calm = [2] * 240 + [10] * 60 + [2] * 300
    events = judge(msgspec.structs.replace(CHANGE, for_s=90), moods([*calm, *[6] * 120]))
    assert events[-1].kind is EventKind.FIRING
    assert events[-1].baseline == pytest.approx(0.2)


def test_the_baseline_stands_still_while_it_fires_and_then_the_new_level_is_usual() -> None:
    events = judge(CHANGE, moods([2] * 600 + [8] * 1500))
    assert said(events)[0] == ("firing", 605)
    assert events[1].reason is Reason.CLEARED
    assert 1205 < events[1].at_s - START <= 1215


def test_history_before_the_first_judged_second_only_builds_up_the_baseline() -> None:
    state = first_state(CHANGE, "lobby", START + 600)
    assert state.at_s == START + 600 - CHANGE.history_s
    _, events = evaluate(CHANGE, moods([2] * 590 + [9] * 20), state)
    assert said(events) == [("firing", 605)], "held since the first judged second, though it began before"


def test_the_trimmed_mean_leaves_out_a_fifth_at_each_end() -> None:
    assert trimmed_mean([0.0, 0.2, 0.3, 0.4, 1.0]) == pytest.approx(0.3)
    assert trimmed_mean([0.25]) == 0.25


def test_another_stream_of_the_same_name_has_other_events() -> None:
    points = moods([8] * 5)
    first = evaluate(SHARE, points, first_state(SHARE, "lobby", START, 1))[1]
    second = evaluate(SHARE, points, first_state(SHARE, "lobby", START, 2))[1]
    assert first[0].event_id != second[0].event_id


SECOND = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 10), st.integers(1, 10)).map(lambda pair: (min(pair), pair[1])),
    st.sampled_from(["away", "unseen", "paused"]),
)
RULES = st.builds(
    lambda kind, window, least, clear, times: rule(
        kind=kind,
        emotion="happy" if kind in (RuleKind.SHARE, RuleKind.CHANGE) else None,
        window_s=window,
        min_faces=least,
        threshold=20.0 if kind is RuleKind.CHANGE else 0.6,
        clear_threshold=clear * (20.0 if kind is RuleKind.CHANGE else 0.6),
        for_s=times[0],
        clear_for_s=times[1],
        no_data_s=times[2],
        quiet_s=times[3],
        baseline_s=300,
        baseline_min=2,
    ),
    st.sampled_from(list(RuleKind)),
    st.integers(1, 8),
    st.integers(1, 12),
    st.floats(0, 1),
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 12), st.integers(0, 40)),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Second]:
    """Stretches of like seconds, so that conditions come to hold; long enough for baselines."""
    stretches = draw(st.lists(st.tuples(SECOND, st.integers(1, 90)), min_size=1, max_size=14))
    points: list[Second] = []
    for value, length in stretches:
        points += [_second(len(points) + n, value) for n in range(length)]
    return points


def _second(at: int, value: object) -> Second:
    if isinstance(value, tuple):
        return mood(at, value[0], value[1])
    looks = {None: (10, 10, True), "away": (0, 0, True), "unseen": (10, 0, True), "paused": (0, 0, False)}
    sampled, classified, observed = looks[value]
    return Second(START + at, sampled, classified, observed=observed)


@given(RULES, histories(), st.randoms(use_true_random=False))
def test_batches_and_restarts_leave_no_trace(judged: Rule, points: list[Second], chance: random.Random) -> None:
    whole = evaluate(judged, points, first_state(judged, "lobby", START))
    state, events, at = first_state(judged, "lobby", START), list[AlertEvent](), 0
    while at < len(points):
        stop = at + chance.randint(1, 40)
        # Seconds that were judged before come again, as they do after a restart from an older state.
        state, more = evaluate(judged, points[max(0, at - chance.randint(0, 5)) : stop], state)
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=AlertState)
        events, at = events + more, stop
    assert (state, events) == whole


@given(RULES, histories())
def test_alerts_begin_and_end_in_turn_and_never_flap(judged: Rule, points: list[Second]) -> None:
    events = judge(judged, points)
    assert [event.kind for event in events] == [EventKind.FIRING, EventKind.RESOLVED] * (len(events) // 2) + [
        EventKind.FIRING
    ] * (len(events) % 2)
    assert len({event.event_id for event in events}) == len(events)
    for first, second in itertools.pairwise(events):
        least = judged.for_s if second.kind is EventKind.FIRING else judged.clear_for_s
        assert second.at_s - first.at_s >= least or second.reason is Reason.NO_DATA
    told = [event.at_s for event in events if event.kind is EventKind.FIRING and event.notify]
    assert all(later - earlier >= judged.quiet_s for earlier, later in itertools.pairwise(told))


@given(histories())
def test_a_rule_that_cannot_be_met_never_fires(points: list[Second]) -> None:
    assert judge(rule(threshold=1.0, clear_threshold=1.0), points) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rule_id": "-glad"}, "id"),
        ({"label": "site=berlin"}, "stream"),
        ({"stream": None}, "stream"),
        ({"stream": None, "label": "=x"}, "label"),
        ({"emotion": "bored"}, "emotion"),
        ({"emotion": None}, "emotion"),
        ({"kind": RuleKind.OFFLINE}, "emotion"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"clear_threshold": 0.8}, "clear_threshold"),
        ({"direction": Direction.UNDER}, "clear_threshold"),
        ({"direction": Direction.EITHER}, "direction"),
        ({"for_s": 0}, "for_s"),
        ({"window_s": 3601}, "window_s"),
        ({"min_faces": 0}, "min_faces"),
        ({"baseline_s": 300, "baseline_min": 6}, "baseline_min"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRuleError) as error:
        rule(**changes)
    assert error.value.field == field
