"""What is committed when: one commit under way at a time, nothing older after something newer, nothing forgotten."""

import pytest

from moodline.shared.bus.commits import LATE_S, Commits


def test_what_is_done_while_a_commit_is_under_way_goes_with_the_next() -> None:
    commits = Commits()
    commits.want({0: 5})
    assert commits.due(0.0) == {0: 5}
    commits.want({0: 7, 1: 2})
    commits.want({0: 9})
    assert commits.due(0.1) == {}
    commits.succeeded({0: 5})
    assert commits.taken == {0: 5}
    assert commits.due(0.2) == {0: 9, 1: 2}


def test_a_refused_commit_is_sent_again_after_a_pause_that_grows() -> None:
    commits = Commits()
    commits.want({0: 5})
    assert commits.due(0.0) == {0: 5}
    now_s, pauses = 0.0, []
    for _ in range(6):
        commits.failed([0], now_s)
        refused_s = now_s
        while not (sent := commits.due(now_s)):
            now_s += 0.01
        assert sent == {0: 5}
        pauses.append(round(now_s - refused_s, 2))
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.1
    assert pauses[-1] == pytest.approx(1.0, abs=0.05)


def test_what_was_refused_does_not_replace_what_is_newer() -> None:
    commits = Commits()
    commits.want({0: 5})
    commits.due(0.0)
    commits.want({0: 9})
    commits.failed([0], 0.0)
    assert commits.due(10.0) == {0: 9}


def test_a_commit_that_is_never_answered_is_sent_again() -> None:
    commits = Commits()
    commits.want({0: 5})
    assert commits.due(0.0) == {0: 5}
    assert commits.due(LATE_S - 0.1) == {}
    commits.due(LATE_S)
    assert commits.due(LATE_S + 5) == {0: 5}


def test_an_answer_to_an_older_commit_is_not_taken_for_the_newer_one() -> None:
    commits = Commits()
    commits.want({0: 5})
    commits.due(0.0)
    commits.due(LATE_S)
    commits.want({0: 9})
    assert commits.due(LATE_S + 5) == {0: 9}
    commits.succeeded({0: 5})
    assert commits.taken == {}
    assert commits.left() == {0: 9}


def test_a_partition_that_leaves_takes_its_part_along_and_frees_the_way() -> None:
    commits = Commits()
    commits.want({0: 5})
    commits.due(0.0)
    commits.want({0: 7, 1: 3})
    assert commits.forget([0]) == {0: 7}
    assert commits.due(0.1) == {1: 3}


def test_trouble_lasts_from_the_first_refusal_to_the_next_success() -> None:
    commits = Commits()
    assert commits.troubled_s(100.0) == 0
    commits.want({0: 5})
    commits.due(1.0)
    commits.failed([0], 2.0)
    assert commits.troubled_s(61.0) == 60
    commits.due(62.0)
    commits.succeeded({0: 5})
    assert commits.troubled_s(63.0) == 0
