"""The detector's network, targets, training and export; needs PyTorch."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from moodline.services.detector.own import MANIFEST, OwnDetector, load_manifest
from moodline.shared.errors import ModelError, SettingsError
from moodline.training.detector.config import DetectorTraining
from moodline.training.detector.export import export
from moodline.training.detector.graph import build_graph, places
from moodline.training.detector.network import answers, folded, has_shortcut, is_learnt, new_state
from moodline.training.detector.photos import Photo
from moodline.training.detector.sampling import Sample, SamplingConfig
from moodline.training.detector.spec import SPECS
from moodline.training.detector.targets import Cells, Faces, assign, boxes_of, flat, ignored_cells, losses, make_cells, overlaps
from moodline.training.detector.train import CHECKPOINT, LOG, Run, collated, learning_rate, run_training
from moodline.training.detector.validate import LabelledPhoto

torch = pytest.importorskip("torch", reason="training needs PyTorch")

CONFIG = DetectorTraining(
    network="tiny",
    epochs=2,
    pictures=16,
    batch=8,
    average_decay=0.9,
    sampling=SamplingConfig(side_px=96, mosaic=0.3, most_face_px=80),
)


def lived_in_state(name: str) -> dict[str, Any]:
    """Return weights as after training: norms that do something."""
    state = new_state(SPECS[name], 3)
    generator = torch.Generator().manual_seed(5)
    for key, value in state.items():
        if key.endswith((".gamma", ".variance")):
            value.mul_(torch.rand(value.shape, generator=generator) + 0.5)
        elif key.endswith((".beta", ".mean")) or key.startswith("answer"):
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return state


def faces_of_boxes(*boxes: tuple[float, ...], ignored: tuple[tuple[float, ...], ...] = (), side: int = 96) -> Faces:
    filled = torch.tensor(boxes or ((0, 0, 0, 0),), dtype=torch.float32).reshape(1, -1, 4)
    regions = ignored_cells(np.array(ignored, np.float32).reshape(-1, 4), side, side)
    return Faces(filled, torch.full(filled.shape[:2], 1.0 if boxes else 0.0), torch.from_numpy(regions)[None])


# network


@pytest.mark.parametrize("name", ["tiny", "deep"])
def test_the_served_graph_answers_like_the_trained_network(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    spec, state = SPECS[name], lived_in_state(name)
    assert any(has_shortcut(place) for place in places(spec))
    graph = build_graph(spec, folded(spec, {key: value.numpy() for key, value in state.items()}), name)
    images = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 96), dtype=np.uint8)
    with torch.no_grad():
        expected = [level.numpy() for level in answers(spec, state, torch.from_numpy(images), training=False)]
    served = reference.ReferenceEvaluator(onnx.load_from_string(graph)).run(None, {"image": images.astype(np.float32)})
    for one, other in zip(served, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 2e-4 * max(1, np.abs(other).max())
    assert len(graph) < 2_000_000


def test_at_the_start_there_is_hardly_a_face_anywhere() -> None:
    spec = SPECS["small"]
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    scores = flat(answers(spec, new_state(spec, 1), images, training=True))[..., 0].sigmoid()
    assert 0.005 < float(scores.mean()) < 0.02


# targets


def test_answers_and_boxes_belong_together() -> None:
    cells = make_cells(64, 96)
    assert len(cells.x) == 8 * 12 + 4 * 6 + 2 * 3
    answer = torch.zeros(1, len(cells.x), 5)
    index = 8 * 12 + 1 * 6 + 2  # stride 16, row 1, column 2
    assert boxes_of(answer, cells)[0, index].tolist() == [40 - 16, 24 - 16, 40 + 16, 24 + 16]


def test_the_whole_overlaps_itself() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlaps(boxes[:, None], boxes[None]).flatten().tolist() == pytest.approx(
        [1, 1 / 3, 0, 1 / 3, 1, 0, 0, 0, 1], abs=1e-6
    )


def assigned(faces: Faces, side: int = 320) -> tuple[Any, Any, Cells]:
    cells = make_cells(side, side)
    answer = torch.zeros(1, len(cells.x), 5)
    target, owner = assign(torch.full((1, len(cells.x)), 0.1), boxes_of(answer, cells), cells, faces)
    return target[0], owner[0], cells


@pytest.mark.parametrize(("side", "strides"), [(10, {8}), (40, {8, 16}), (100, {16, 32}), (300, {32})])
def test_a_face_is_taught_at_the_levels_of_its_size(side: int, strides: set[int]) -> None:
    target, _, cells = assigned(faces_of_boxes((160 - side / 2, 150 - side / 2, 160 + side / 2, 150 + side / 2)))
    chosen = target > 0
    assert 1 <= int(chosen.sum()) <= 9
    assert {int(stride) for stride in cells.stride[chosen]} <= strides
    assert float(target.max()) <= 1


def test_cells_of_neighbours_are_not_mixed_up_and_filling_boxes_get_none() -> None:
    faces = faces_of_boxes((40, 40, 70, 75), (80, 40, 110, 75), (0, 0, 0, 0))
    faces.real[0, 2] = 0
    target, owner, cells = assigned(faces)
    for face, (left, right) in enumerate(((40, 70), (80, 110))):
        mine = (target > 0) & (owner == face)
        assert bool(mine.any())
        assert bool(((cells.x[mine] > left) & (cells.x[mine] < right)).all())
    assert not bool(((target > 0) & (owner == 2)).any())


def test_ignored_regions_cost_nothing_but_faces_in_them_do() -> None:
    cells = make_cells(96, 96)
    answer = torch.zeros(1, len(cells.x), 5)
    answer[..., 0] = -9
    inside = (cells.x > 30) & (cells.x < 60) & (cells.y > 30) & (cells.y < 60)
    answer[0, inside, 0] = 5
    alone = losses(answer, cells, faces_of_boxes(), 1.0)
    ignored = losses(answer, cells, faces_of_boxes(ignored=((30, 30, 60, 60),)), 1.0)
    assert float(alone.total) > 10
    assert float(ignored.total) < 1e-3
    face = losses(answer, cells, faces_of_boxes((30, 30, 60, 60), ignored=((30, 30, 60, 60),)), 1.0)
    assert float(face.box) > 0


def test_a_right_answer_costs_less_than_a_wrong_one() -> None:
    cells = make_cells(96, 96)
    faces = faces_of_boxes((24, 24, 56, 56))
    right, wrong = torch.zeros(1, len(cells.x), 5), torch.zeros(1, len(cells.x), 5)
    right[..., 0] = wrong[..., 0] = -9
    index = int(((cells.x == 40) & (cells.y == 40)).nonzero()[0])
    right[0, index, 0] = 9
    assert float(losses(right, cells, faces, 1.0).score) < float(losses(wrong, cells, faces, 1.0).score)
    assert float(losses(right, cells, faces, 1.0).overlap) > 0


def test_batches_are_filled_up_with_faces_that_are_none() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    some, none = np.array([[1, 2, 9, 12]], np.float32), np.empty((0, 4), np.float32)
    images, faces = collated([Sample(image, some, none), Sample(image, none, np.concatenate([some, some]))])
    assert tuple(images.shape) == (2, 3, 32, 32)
    assert faces.real.tolist() == [[1], [0]]
    assert faces.boxes[0].tolist() == some.tolist()
    assert faces.ignored.sum(1).tolist() == [0, 2 * 2 + 1 + 1], (
        "cells of 8 px from 1 to 9 and 2 to 12 px, and one of 16 and of 32 px"
    )


def test_cells_in_ignored_regions_are_those_whose_centres_are_near() -> None:
    regions = np.array([[30, 30, 60, 47], [80, 0, 96, 8]], np.float32)
    cells = make_cells(96, 96)
    expected = torch.zeros(len(cells.x), dtype=torch.bool)
    for left, top, right, bottom in regions.tolist():
        slack = cells.stride / 2
        expected |= (cells.x > left - slack) & (cells.x < right + slack) & (cells.y > top - slack) & (cells.y < bottom + slack)
    assert ignored_cells(regions, 96, 96).tolist() == expected.tolist()


# training


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = DetectorTraining(epochs=10, learning_rate=1.0, warm_up=1.0, fall_from=0.5)
    rates = [learning_rate(config, progress) for progress in (0, 0.5, 1, 4.9, 7.5, 10)]
    assert rates == pytest.approx([0.01, 0.51, 1, 1, 0.505, 0.01], abs=1e-6)


def made_photos(count: int) -> list[Photo]:
    """Return noise with a bright, round face each."""
    photos = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 90, (120, 120, 3), dtype=np.uint8)
        x, y, half = int(rng.integers(30, 80)), int(rng.integers(30, 80)), int(rng.integers(10, 24))
        image[y - half : y + half, x - half : x + half] = (120, 170, 220)
        image[y - half // 3 : y, x - half // 2 : x - half // 4] = image[y - half // 3 : y, x + half // 4 : x + half // 2] = 20
        box = np.array([[x - half, y - half, x + half, y + half, 0.9]], np.float32)
        photos.append(Photo(f"faces/made/{index}.jpg", image, box))
    return photos


def trained(folder: Path, config: DetectorTraining = CONFIG) -> Path:
    photos = made_photos(12)
    labelled = [LabelledPhoto(photo.name, photo.image, photo.boxes[:, :4]) for photo in photos[:4]]
    return run_training(config, photos[4:], photos[:4], labelled, folder, 0)


def test_a_run_that_stops_after_an_epoch_ends_like_one_that_does_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = np.load(trained(tmp_path / "whole"))
    half = Run(CONFIG, made_photos(12)[4:], tmp_path / "parts", 0)
    half.end_epoch(1.0, half.train_epoch(), {})
    parts = np.load(trained(tmp_path / "parts"))
    assert set(whole.files) == set(parts.files)
    for name in whole.files:
        if name != "log":  # it holds seconds
            assert whole[name].tobytes() == parts[name].tobytes(), name
    lines = [msgspec.json.decode(line) for line in (tmp_path / "parts" / LOG).read_bytes().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert set(lines[1]["measured"]) >= {"others_ap", "labelled_iou", "labelled_recall_at_0.93"}


def test_more_epochs_may_be_asked_for_but_nothing_else_may_change(tmp_path: Path) -> None:
    trained(tmp_path, msgspec.structs.replace(CONFIG, epochs=1))
    assert Run(CONFIG, made_photos(4), tmp_path, 0).epoch == 1
    with pytest.raises(SettingsError, match="another configuration"):
        Run(msgspec.structs.replace(CONFIG, seed=8), made_photos(4), tmp_path, 0)
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(ModelError):
        Run(CONFIG, made_photos(4), tmp_path, 0)


@pytest.mark.slow
def test_faces_that_are_easy_are_learnt(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = msgspec.structs.replace(CONFIG, epochs=10, pictures=400, learning_rate=5e-3, warm_up=0.5)
    trained(tmp_path, config)
    last = msgspec.json.decode((tmp_path / LOG).read_bytes().splitlines()[-1])["measured"]
    assert last["labelled_ap"] > 0.6
    assert last["others_ap"] > 0.6


def test_only_running_statistics_are_not_learnt() -> None:
    state = new_state(SPECS["tiny"], 1)
    assert {name.rsplit(".", 1)[1] for name in state if not is_learnt(name)} == {"mean", "variance"}


def test_a_run_begins_with_anothers_served_weights(tmp_path: Path) -> None:
    first = Run(CONFIG, made_photos(8), tmp_path / "first", 0)
    first.end_epoch(1.0, first.train_epoch(), {})
    second = Run(msgspec.structs.replace(CONFIG, start=str(tmp_path / "first")), made_photos(8), tmp_path / "second", 0)
    assert second.epoch == 0
    assert all(torch.equal(second.served()[name], value) for name, value in first.served().items())
    other = msgspec.structs.replace(CONFIG, network="small", start=str(tmp_path / "first"))  # lacks most layers
    with pytest.raises(ModelError, match="does not fit this network"):
        Run(other, made_photos(8), tmp_path / "third", 0)


def test_a_run_keeps_a_share_of_what_it_began_with_also_when_it_goes_on(tmp_path: Path) -> None:
    first = Run(CONFIG, made_photos(8), tmp_path / "first", 0)
    first.end_epoch(1.0, first.train_epoch(), {})
    began = msgspec.structs.replace(CONFIG, start=str(tmp_path / "first"))
    for name, keep in (("none", 0.0), ("half", 0.5)):
        run = Run(msgspec.structs.replace(began, keep_start=keep), made_photos(8), tmp_path / name, 0)
        run.end_epoch(1.0, run.train_epoch(), {})
    before = first.served()
    first.end_epoch(1.0, first.train_epoch(), {})  # that it goes on is nothing to those that began with it
    plain = Run(began, made_photos(8), tmp_path / "none", 0).served()
    half = Run(msgspec.structs.replace(began, keep_start=0.5), made_photos(8), tmp_path / "half", 0).served()
    learnt = next(name for name in plain if is_learnt(name))
    assert not torch.equal(plain[learnt], before[learnt])
    assert all(torch.allclose(half[name], (value + before[name]) / 2, atol=1e-6) for name, value in plain.items())
    with pytest.raises(ValueError, match="keep_start needs start"):
        msgspec.structs.replace(CONFIG, keep_start=0.5)


def test_a_deeper_network_goes_on_where_a_shallower_one_stood(tmp_path: Path) -> None:
    first = Run(msgspec.structs.replace(CONFIG, network="small"), made_photos(4), tmp_path / "first", 0)
    first.end_epoch(1.0, first.train_epoch(), {})
    deeper = Run(
        msgspec.structs.replace(CONFIG, network="deep", start=str(tmp_path / "first")), made_photos(4), tmp_path / "second", 0
    )
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = answers(SPECS["small"], first.served(), images, training=False)
        after = answers(SPECS["deep"], deeper.served(), images, training=False)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(before, after, strict=True))
    deeper.train_epoch()
    assert float(deeper.served()["stage8.4.gamma"].abs().max()) > 0, "the new layers learn"


def test_what_is_exported_says_all_runs_it_came_from_but_not_where_they_lay(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    first = tmp_path / "first"
    trained(first)
    trained(tmp_path / "second", msgspec.structs.replace(CONFIG, start=str(first), epochs=1))
    labelled = [LabelledPhoto(photo.name, photo.image, photo.boxes[:, :4]) for photo in made_photos(4)]
    manifest = export(tmp_path / "second", labelled, tmp_path / "model", "tiny")
    runs = manifest.training["runs"]
    assert [(run["name"], run["epochs"], run["options"]["start"]) for run in runs] == [("first", 2, ""), ("second", 1, "first")]
    assert str(tmp_path).encode() not in (tmp_path / "model" / MANIFEST).read_bytes()
    assert load_manifest(tmp_path / "model") == manifest
    assert OwnDetector(tmp_path / "model", None, 64).detect(labelled[0].image).shape[1] == 5
    (first / CHECKPOINT).unlink()
    with pytest.raises(ModelError, match="first"):
        export(tmp_path / "second", labelled, tmp_path / "model", "tiny")
