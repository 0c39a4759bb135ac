"""The slot where the newest wins."""

import threading
import time

from moodline.services.ingest.live.latest import LatestSlot, Taken


def test_the_newest_wins_and_what_it_replaced_comes_before_it_in_order() -> None:
    slot: LatestSlot[int] = LatestSlot(10)
    assert [slot.put(number) for number in range(4)] == [None, 0, 1, 2]
    assert slot.take(0.0) == Taken((0, 1, 2), 3)
    assert slot.take(0.0) == Taken((), None)


def test_notes_of_what_was_replaced_are_bounded_and_the_rest_counted() -> None:
    slot: LatestSlot[int] = LatestSlot(3)
    for number in range(10):
        slot.put(number)
    assert slot.take(0.0) == Taken((6, 7, 8), 9, forgotten=6)
    slot.put(10)
    assert slot.take(0.0) == Taken((), 10), "they are told of once"


def test_closing_wakes_the_taker_and_leaves_what_is_in() -> None:
    slot: LatestSlot[int] = LatestSlot(3)
    taken: list[Taken[int]] = []
    taker = threading.Thread(target=lambda: taken.append(slot.take(20.0)))
    taker.start()
    slot.close()
    taker.join(5.0)
    assert taken == [Taken((), None)]

    slot = LatestSlot(3)
    slot.put(1)
    slot.close()
    assert not slot.is_done
    assert slot.take(20.0) == Taken((), 1)
    assert slot.is_done


def test_nothing_is_lost_between_two_threads() -> None:
    slot: LatestSlot[int] = LatestSlot(100_000)
    got: list[int] = []

    def take_all() -> None:
        while not slot.is_done:
            taken = slot.take(0.01)
            got.extend(taken.replaced)
            if taken.newest is not None:
                got.append(taken.newest)

    taker = threading.Thread(target=take_all)
    taker.start()
    for number in range(20_000):
        slot.put(number)
    slot.close()
    taker.join(20.0)
    assert got == list(range(20_000))


def test_waiting_for_an_item_ends_in_time() -> None:
    began_s = time.monotonic()
    assert LatestSlot[int](1).take(0.05) == Taken((), None)
    assert 0.04 < time.monotonic() - began_s < 5.0
