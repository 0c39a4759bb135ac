import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moodline.services.classifier.quantise import quantised
from moodline.shared.errors import ModelError

WEIGHTS = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(7)), elements=st.floats(0, 1, width=32)).filter(
    lambda rows: bool((rows.sum(1) > 1e-3).all())
)


def distributions(weights: np.ndarray) -> np.ndarray:
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@given(WEIGHTS)
def test_rows_sum_to_the_scale_and_are_less_than_one_off(weights: np.ndarray) -> None:
    rows = distributions(weights)
    integers = quantised(rows)
    exact = rows.astype(np.float64) / rows.astype(np.float64).sum(1, keepdims=True) * 65535
    assert (integers.sum(1) == 65535).all()
    assert (integers >= 0).all()
    assert (np.abs(integers - exact) < 1).all()


@given(WEIGHTS)
def test_the_order_of_classes_is_kept(weights: np.ndarray) -> None:
    rows = distributions(weights)
    for row, integers in zip(rows, quantised(rows), strict=True):
        for low in range(7):
            for high in range(7):
                if row[low] < row[high]:
                    assert integers[low] <= integers[high]


@given(WEIGHTS)
def test_a_row_does_not_depend_on_its_neighbours(weights: np.ndarray) -> None:
    rows = distributions(weights)
    together = quantised(rows)
    for index in range(len(rows)):
        assert np.array_equal(quantised(rows[index : index + 1])[0], together[index])
    assert np.array_equal(quantised(np.asfortranarray(rows)), together)


def test_ties_go_to_the_first() -> None:
    # 65535 / 7 = 9362 and 1 left over.
    assert quantised(np.full((1, 7), 1 / 7, np.float32)).tolist() == [[9363, 9362, 9362, 9362, 9362, 9362, 9362]]
    assert quantised(np.array([[0.5, 0, 0, 0, 0, 0, 0.5]], np.float32)).tolist() == [[32768, 0, 0, 0, 0, 0, 32767]]


def test_certainty_is_exact() -> None:
    assert quantised(np.eye(7, dtype=np.float32)).tolist() == (np.eye(7, dtype=int) * 65535).tolist()


@pytest.mark.parametrize("factor", [0.9995, 1.0005])
def test_small_errors_of_a_sum_are_forgiven(factor: float) -> None:
    row = np.array([[0.3, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1]], np.float32) * np.float32(factor)
    integers = quantised(row)
    assert integers.sum() == 65535
    assert abs(int(integers[0, 0]) - 0.3 * 65535) < 1


def test_no_rows() -> None:
    assert quantised(np.empty((0, 7), np.float32)).shape == (0, 7)


@pytest.mark.parametrize(
    "row",
    [
        [np.nan, 0, 0, 0, 0, 0, 1],
        [np.inf, 0, 0, 0, 0, 0, 0],
        [-0.1, 0.1, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
    ],
)
def test_what_is_no_distribution_is_refused(row: list[float]) -> None:
    good = [0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(ModelError):
        quantised(np.array([good, row], np.float32))


@pytest.mark.parametrize("shape", [(7,), (2, 6), (1, 2, 7)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"\(N, 7\)"):
        quantised(np.zeros(shape, np.float32))
