"""The credit window bounds what is on its way, in frames and bytes, and never blocks a file for good."""

from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.file.credit import Credit


@given(
    st.integers(2, 12),
    st.integers(1, 3000),
    st.integers(0, 5),
    st.lists(st.one_of(st.tuples(st.just("send"), st.integers(1, 1500)), st.tuples(st.just("apply"), st.integers(1, 5)))),
)
def test_never_more_than_the_window_is_on_its_way(frames: int, size: int, start: int, acts: list[tuple[str, int]]) -> None:
    credit, sent, mark = Credit(start, frames, size), {}, start - 1
    for act, number in acts:
        if act == "send" and credit.has_room():
            seq = start + len(sent)
            sent[seq] = number
            credit.sent(seq, number)
        elif act == "apply":
            mark = min(mark + number, start + len(sent) - 1)
            credit.settle(mark)
        out = {seq: size_ for seq, size_ in sent.items() if seq > mark}
        assert (credit.frames_out, credit.bytes_out) == (len(out), sum(out.values()))
        assert len(out) <= frames
        assert sum(out.values()) < size + 1500
        if not out:
            assert credit.has_room()
            assert credit.has_slack()


def test_a_frame_larger_than_the_window_goes_alone() -> None:
    credit = Credit(0, 10, 100)
    assert credit.has_room()
    credit.sent(0, 5000)
    assert not credit.has_room()
    credit.settle(0)
    assert credit.has_room()


def test_slack_is_a_quarter_of_the_window() -> None:
    credit = Credit(0, 8, 1 << 20)
    for seq in range(8):
        credit.sent(seq, 1)
    assert not credit.has_room()
    credit.settle(0)
    assert credit.has_room()
    assert not credit.has_slack()
    credit.settle(1)
    assert credit.has_slack()


def test_a_mark_that_went_back_takes_the_credit_back() -> None:
    credit = Credit(0, 4, 1 << 20)
    for seq in range(4):
        credit.sent(seq, 1)
    credit.settle(3)
    credit.settle(-1)
    assert credit.frames_out == 4
    assert not credit.has_room()
