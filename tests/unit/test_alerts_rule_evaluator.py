"""Judging live: what is told, once each, whatever ends, freezes or changes meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moodline.services.alerts.dry_run import dry_run
from moodline.services.alerts.leader_lease import TERM_S
from moodline.services.alerts.records import ALERTS_LOG, STATES, Saved, decode
from moodline.services.alerts.rule_evaluator import RuleEvaluator
from moodline.services.alerts.rules import RuleKind
from moodline.shared.errors import RevisionConflictError, StoreUnavailableError
from moodline.shared.timeline.tiers import Extent
from tests.support.alerts import GLAD, START, AlertWorld, alone, away, calm, glad

FIRED = ("firing", "condition", "hall")
CLEARED = ("resolved", "cleared", "hall")
WITHDRAWN = ("resolved", "withdrawn", "hall")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AlertWorld]:
    world = AlertWorld(tmp_path)
    yield world
    world.store.close()


def test_an_alert_is_logged_sent_and_counted_once(world: AlertWorld) -> None:
    world.add_rule()
    process = world.process()
    process.step()
    world.play(glad(10))
    for _ in range(3):
        process.step()
        process.deliver()
    assert world.log() == [FIRED]
    [(url, secret, body, event_id)] = world.receiver.got
    assert (url, secret) == ("https://example.org/hook", "whs_1")
    said = json.loads(body)
    assert (said["id"], said["rule"], said["stream"], said["value"]) == (event_id, "glad", "hall", 1.0)
    assert said.pop("text")
    assert said == json.loads(world.store.records(ALERTS_LOG)[0][1])
    world.play(calm(10))
    process.step()
    assert world.log() == [FIRED, CLEARED]
    assert world.metrics.alerts.labels("firing", "condition")._value.get() == 1


def test_only_from_now_on_is_judged(world: AlertWorld) -> None:
    world.play(glad(30))
    world.add_rule()
    process = world.process()
    process.step()
    world.play(glad(3))
    process.step()
    assert world.log() == []
    world.play(glad(4))
    process.step()
    assert world.log() == [FIRED]


def test_a_label_watches_every_stream_with_it_on_its_own(world: AlertWorld) -> None:
    world.add_stream("yard", {"site": "berlin"})
    world.add_stream("shop", {"site": "paris"})
    world.add_rule(msgspec.structs.replace(GLAD, stream=None, label="site=berlin", kind=RuleKind.OFFLINE, emotion=None))
    process = world.process()
    process.step()
    world.play([*alone(3), *away(20)])
    process.step()
    assert sorted(world.log()) == [("firing", "condition", "hall"), ("firing", "condition", "yard")]


def test_a_timeline_that_lags_is_waited_for(world: AlertWorld) -> None:
    world.add_rule(msgspec.structs.replace(GLAD, kind=RuleKind.OFFLINE, emotion=None))
    process = world.process()
    process.step()
    world.play(alone(3))
    epoch = world.store.acquire("hall", world.clock.now).epoch
    for _ in range(40):
        world.clock.now += 1
        status = world.store.statuses(["hall"])[0]
        world.store.set_status("hall", epoch, msgspec.structs.replace(status, last_frame_us=int(world.clock.now * 1e6)))
        process.step()
    assert world.log() == [], "the camera sends: Moodline is late"
    world.clock.now += 120
    process.step()
    assert world.log() == [FIRED], "but not indefinitely"


def test_a_pause_is_no_absence(world: AlertWorld) -> None:
    world.add_rule(msgspec.structs.replace(GLAD, kind=RuleKind.OFFLINE, emotion=None))
    world.play(alone(3))
    world.store.replace(msgspec.structs.replace(world.store.get("hall"), paused=True))
    process = world.process()
    process.step()
    world.play(away(60))
    process.step()
    assert world.log() == []


@pytest.mark.parametrize("change", ["condition", "disabled", "removed", "stream"])
def test_an_alert_whose_rule_is_no_more_is_over(world: AlertWorld, change: str) -> None:
    world.add_rule()
    process = world.process()
    process.step()
    world.play(glad(10))
    process.step()
    stored = world.rules.get("glad")
    if change == "condition":
        world.rules.replace(msgspec.structs.replace(stored.rule, threshold=0.9), stored.revision)
    elif change == "disabled":
        world.rules.replace(msgspec.structs.replace(stored.rule, enabled=False), stored.revision)
    elif change == "removed":
        world.rules.remove("glad")
    else:
        world.store.remove("hall")
    for _ in range(2):
        process.step()
    # Of a stream that was deleted nothing is kept.
    assert world.log() == ([] if change == "stream" else [FIRED, WITHDRAWN])
    assert len(world.store.list_entries(STATES)) == (1 if change == "condition" else 0)


def test_a_change_of_the_note_changes_nothing_of_the_alert(world: AlertWorld) -> None:
    world.add_rule()
    process = world.process()
    process.step()
    world.play(glad(10))
    process.step()
    stored = world.rules.get("glad")
    world.rules.replace(msgspec.structs.replace(stored.rule, note="call the desk"), stored.revision)
    world.play(glad(10))
    process.step()
    assert world.log() == [FIRED]


HISTORY = [*glad(7), *calm(3), *glad(9), *away(4), *calm(9), *alone(30), *glad(12), *calm(8), *glad(6)]
TOLD = [FIRED, CLEARED, FIRED, CLEARED, FIRED]


def test_the_log_of_the_history_below(world: AlertWorld) -> None:
    world.add_rule()
    process = world.process()
    process.step()
    world.play(HISTORY)
    world.play(away(6))
    process.step()
    assert world.log() == TOLD


class FailingStore:
    """A store that ends the process at a write: before it, or after it while the answer is lost."""

    def __init__(self, inner: object, at: int, *, after: bool) -> None:
        self._inner, self._left, self._after = inner, at, after

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name not in ("put_entry", "append_record", "remove_entry"):
            return found

        def write(*arguments: object) -> object:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise StoreUnavailableError("the process ends here")
            answer = found(*arguments)
            if self._left == 0:
                raise StoreUnavailableError("the process ends here")
            return answer

        return write


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 16, 19])
def test_wherever_the_process_ends_nothing_is_lost_and_nothing_told_twice(world: AlertWorld, at: int, after: bool) -> None:
    world.add_rule()
    real, judge = world.store, world.judge()
    judge.step()
    world.store = FailingStore(real, at, after=after)  # type: ignore[assignment]
    judge = world.judge()
    ends = 0
    for start in range(0, len(HISTORY), 4):
        world.store, failing = real, world.store
        world.play(HISTORY[start : start + 4])
        world.store = failing
        try:
            judge.step()
        except StoreUnavailableError:
            ends, world.store = ends + 1, real
            judge = world.judge()
    world.store = real
    world.play(away(6))
    final = world.judge()
    final.step()
    assert ends == 1 or at > 14
    assert world.log() == TOLD
    entries = [decode(found.value, Saved) for found in real.list_entries(STATES)]
    assert [saved.pending for saved in entries] == [()]
    process = world.process()
    process.step()
    process.deliver()
    assert len({event_id for *_, event_id in world.receiver.got}) == len(world.receiver.got) == len(TOLD)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.sampled_from(["step", "restart", "other", "wait"]), min_size=20, max_size=20))
def test_restarts_and_changes_of_owner_leave_no_trace(tmp_path: Path, cuts: list[str]) -> None:
    world = AlertWorld(Path(mkdtemp(dir=tmp_path)))
    world.add_rule()
    processes = [world.process(), world.process()]
    processes[0].step()
    at = 0
    for cut in cuts:
        world.play(HISTORY[at : at + 5])
        at += 5
        if cut == "restart":
            processes[0] = world.process()
        elif cut == "other":
            processes.reverse()
        elif cut == "step":
            for process in processes:
                process.step()
                process.deliver()
    world.play(away(6))
    for process in processes * 2:
        process.step()
    world.clock.now += TERM_S
    for process in processes * 2:
        process.step()
        process.deliver()
    assert world.log()[: len(TOLD)] == TOLD
    ids = [event_id for *_, event_id in world.receiver.got]
    assert len(set(ids)) == len(ids) == len(world.log())
    world.store.close()


def test_of_two_processes_one_judges_and_the_other_takes_over(world: AlertWorld) -> None:
    world.add_rule()
    first, second = world.process(), world.process()
    assert [first.step(), second.step()] == [True, False]
    world.play(glad(8))
    assert [second.step(), first.step()] == [False, True]
    assert second.deliver() == 0
    # The first one ends without a word.
    assert second.step() is False
    world.play(calm(int(TERM_S) + 1))
    assert second.step() is True
    second.deliver()
    assert world.log() == [FIRED, CLEARED]
    assert len(world.receiver.got) == 2


def test_a_clean_end_hands_the_lease_on_at_once(world: AlertWorld) -> None:
    first, second = world.process(), world.process()
    assert first.step() is True
    first.close()
    assert second.step() is True


def test_an_owner_that_was_frozen_tells_nothing(world: AlertWorld) -> None:
    world.add_rule()
    frozen, other = world.process(), world.process()
    frozen.step()
    other.step()
    world.play(glad(int(TERM_S) + 2))
    assert other.step() is True
    assert world.log() == [FIRED]
    assert frozen.step() is False, "it notices at once"
    assert world.log() == [FIRED]


def test_two_that_both_believe_in_their_lease_fire_once(world: AlertWorld) -> None:
    world.add_rule()
    one, two = world.judge(), world.judge()
    one.step()
    two.step()
    world.play(glad(10))
    one.step()
    with pytest.raises(RevisionConflictError):
        two.step()
    assert world.log() == [FIRED]
    two.forget()
    two.step()
    assert world.log() == [FIRED]


def test_what_a_dry_run_says_is_what_was_told(world: AlertWorld) -> None:
    rule = world.add_rule()
    process = world.process()
    process.step()
    begun_s = decode(world.store.list_entries(STATES)[0].value, Saved).state.judged_from_s
    for second in HISTORY:
        world.play([second])
        process.step()
    world.play(away(6))
    process.step()
    window = Extent(begun_s * 1_000_000, (int(world.clock.now) - 5) * 1_000_000)
    dry = dry_run(world.store, rule, [world.store.get("hall")], window)
    live = [json.loads(value) for _, value in world.store.records(ALERTS_LOG)]
    assert [event.event_id for event in dry] == [each["id"] for each in live]
    assert [event.notify for event in dry] == [each["notify"] for each in live]
    assert begun_s <= START


def test_a_damaged_timeline_does_not_silence_the_others(world: AlertWorld) -> None:
    world.add_stream("yard", {"site": "berlin"})
    world.add_rule(msgspec.structs.replace(GLAD, stream=None, label="site", kind=RuleKind.OFFLINE, emotion=None))
    process = world.process()
    process.step()
    world.damage("hall")
    world.play(away(20))
    process.step()
    assert world.log() == [("firing", "condition", "yard")]


def test_a_state_without_news_is_written_only_now_and_then(world: AlertWorld) -> None:
    world.add_rule()
    judge: RuleEvaluator = world.judge()
    judge.step()
    before = world.store.list_entries(STATES)[0].revision
    world.play(calm(10))
    judge.step()
    assert world.store.list_entries(STATES)[0].revision == before
    world.play(calm(30))
    judge.step()
    assert world.store.list_entries(STATES)[0].revision > before
