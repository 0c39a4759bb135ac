"""What is said of a camera that sends more than this machine decodes."""

from moodline.services.ingest.live.latest import LatestSlot
from moodline.services.ingest.live.overload import Overload


def test_it_is_said_with_the_count_while_it_grows_and_no_longer() -> None:
    overload = Overload()
    overload.measured(0, 1.0)
    assert overload.sentence(1.0) == ""
    overload.measured(12, 2.0)
    assert overload.sentence(2.0).startswith("overloaded: 12 frames")
    said = overload.sentence(2.0)
    overload.measured(20, 4.0)
    assert overload.sentence(4.0) == said, "it does not change every second"
    overload.measured(50, 13.0)
    assert overload.sentence(13.0).startswith("overloaded: 38 frames")
    assert overload.sentence(30.0) == ""


def test_notes_keep_their_turn_among_pictures() -> None:
    slot: LatestSlot[int] = LatestSlot(10)
    slot.put_replaced(1)
    slot.put(2)
    slot.put_replaced(3)
    slot.put(4)
    slot.put_replaced(5)
    taken = slot.take(0)
    assert (taken.replaced, taken.newest) == ((1, 2, 3), 4)
    assert slot.take(0).replaced == (5,)
