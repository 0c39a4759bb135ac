"""A partition that stands still although there is something to read is found, and none that only waits for its turn."""

from moodline.shared.bus.standstill import StandstillWatch


def poll_for(
    watch: StandstillWatch,
    begin_s: float,
    seconds: float,
    positions: dict[int, int | None],
    ends: dict[int, int],
    *,
    drained: bool,
) -> set[int]:
    """Poll every half second; return every partition that was named."""
    return {
        partition
        for step in range(int(seconds * 2) + 1)
        for partition in watch.poll(begin_s + step / 2, positions, ends, drained=drained)
    }


def test_a_partition_that_gives_nothing_while_there_is_more_is_named_once_per_bound() -> None:
    watch = StandstillWatch(hungry_s=8)
    assert poll_for(watch, 0, 7.5, {0: 5}, {0: 9}, drained=True) == set()
    assert poll_for(watch, 8, 1, {0: 5}, {0: 9}, drained=True) == {0}
    assert poll_for(watch, 9.5, 5, {0: 5}, {0: 9}, drained=True) == set()
    assert watch.standing(20.0) == {0: 20.0}


def test_a_partition_at_its_end_may_wait_as_long_as_it_likes() -> None:
    watch = StandstillWatch(hungry_s=8)
    assert poll_for(watch, 0, 100, {0: 9}, {0: 9}, drained=True) == set()
    assert watch.standing(100.0) == {}


def test_a_partition_whose_end_nobody_knows_is_not_judged() -> None:
    """Its broker does not answer: another client would not fetch either."""
    assert poll_for(StandstillWatch(hungry_s=8), 0, 100, {0: 5}, {}, drained=True) == set()


def test_a_partition_that_does_not_know_where_to_begin_stands_still_too() -> None:
    assert poll_for(StandstillWatch(hungry_s=8), 0, 9, {0: None}, {0: 9}, drained=True) == {0}


def test_one_that_moves_is_never_named() -> None:
    watch = StandstillWatch(hungry_s=8)
    for step in range(100):
        assert watch.poll(float(step), {0: step}, {0: 200}, drained=True) == set()


def test_one_that_waits_behind_others_has_far_longer() -> None:
    watch = StandstillWatch(hungry_s=8, served_s=60)
    assert poll_for(watch, 0, 59, {0: 5, 1: 5}, {0: 9, 1: 5}, drained=False) == set()
    assert poll_for(watch, 59.5, 2, {0: 5, 1: 5}, {0: 9, 1: 5}, drained=False) == {0}


def test_time_in_which_the_consumer_did_something_else_does_not_count() -> None:
    watch = StandstillWatch(hungry_s=8)
    watch.poll(0.0, {0: 5}, {0: 9}, drained=True)
    assert watch.poll(600.0, {0: 5}, {0: 9}, drained=True) == set()


def test_what_stood_still_goes_on_standing_still_with_the_next_client_until_it_moves() -> None:
    watch = StandstillWatch(hungry_s=8)
    assert poll_for(watch, 0, 8.5, {0: 5}, {0: 9}, drained=True) == {0}
    watch.reopened()
    watch.poll(20.0, {0: 5}, {0: 9}, drained=True)
    assert watch.standing(30.0) == {0: 30.0}
    watch.poll(31.0, {0: 6}, {0: 9}, drained=True)
    assert watch.standing(32.0) == {}


def test_a_partition_that_went_to_another_consumer_is_forgotten() -> None:
    watch = StandstillWatch(hungry_s=8)
    poll_for(watch, 0, 8.5, {0: 5}, {0: 9}, drained=True)
    watch.forget({0})
    assert watch.standing(10.0) == {}
