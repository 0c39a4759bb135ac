"""Training goes on from a served detector, with faces that were missed and faces that something covers."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from moodline.shared.errors import DataError
from moodline.training.detector.graph import build_graph
from moodline.training.detector.mine import missed
from moodline.training.detector.network import answers, folded, new_state
from moodline.training.detector.photos import Photo, Rules
from moodline.training.detector.sampling import Sampler, SamplingConfig, covered
from moodline.training.detector.spec import SPECS


def photo(name: str, faces: int) -> Photo:
    rng = np.random.default_rng(faces)
    boxes = np.array([[20 + 40 * at, 20, 50 + 40 * at, 50, 0.9] for at in range(faces)], np.float32).reshape(-1, 5)
    return Photo(name, rng.integers(0, 255, (90, 160, 3), np.uint8), boxes)


def test_photos_with_missed_faces_are_drawn_more_often(tmp_path: Path) -> None:
    hard = tmp_path / "hard.json"
    hard.write_text('{"b": 3}')
    photos, plain = [photo("a", 1), photo("b", 1)], SamplingConfig(side_px=64)
    chances = [
        Sampler(photos, Rules(), config, 1)._chances.tolist()  # what is drawn would take thousands of pictures
        for config in (plain, msgspec.structs.replace(plain, hard=str(hard), hard_weight=3.0))
    ]
    assert chances[0] == [0.5, 0.5]
    assert chances[1] == pytest.approx([1 / 11, 10 / 11])
    hard.write_text('{"b": "many"}')
    with pytest.raises(DataError, match=r"hard\.json"):
        Sampler(photos, Rules(), msgspec.structs.replace(plain, hard=str(hard)), 1)


def test_something_lies_before_faces_and_before_nothing_else() -> None:
    image, rng = np.full((100, 100, 3), 120, np.uint8), np.random.default_rng(0)
    faces = np.array([[20, 30, 60, 70]], np.float32)
    before = image.copy()
    changes = [(covered(image, faces, 1.0, rng) != image).any(2) for _ in range(40)]
    assert (image == before).all()
    assert sum(changed.any() for changed in changes) > 20
    for changed in changes:
        outside = changed.copy()
        outside[20:80, 10:70] = False
        assert not outside.any()
        assert changed.sum() < 1600 * 0.9
    assert (covered(image, faces, 0.0, rng) == image).all()


def test_missed_faces_are_counted_among_large_ones_alone() -> None:
    class Finds:
        def detect(self, image: np.ndarray) -> np.ndarray:  # it finds the same everywhere
            return np.array([[20, 20, 50, 50, 0.9]], np.float32)

    two = photo("a", 2)
    assert missed(Finds(), two, Rules()) == 1  # type: ignore[arg-type]  # it needs no more than this
    assert missed(Finds(), two, Rules(), least_px=40) == 0  # type: ignore[arg-type]
    assert missed(Finds(), photo("a", 0), Rules()) == 0  # type: ignore[arg-type]


def test_an_unfolded_detector_answers_as_the_served_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    pytest.importorskip("onnx")
    from moodline.training.detector.unfold import unfolded, weights_of
    from tests.unit.test_training_detector_torch import lived_in_state

    spec, images = SPECS["tiny"], torch.randint(0, 255, (6, 3, 96, 96), dtype=torch.uint8)
    state = lived_in_state("tiny")
    weights = folded(spec, {name: value.numpy() for name, value in state.items()})
    file = tmp_path / "detector.onnx"
    file.write_bytes(build_graph(spec, weights, "tiny"))
    again = unfolded(spec, weights_of(file, spec), images)
    assert again.keys() == new_state(spec, 0).keys()
    with torch.no_grad():
        served, mine, training = (
            answers(spec, values, images, training=mode) for values, mode in ((state, False), (again, False), (again, True))
        )
    for one, other, normalised in zip(served, mine, training, strict=True):
        assert torch.allclose(one, other, atol=1e-3)
        assert torch.allclose(one, normalised, atol=0.05), "normalised by these very pictures, it says the same"
