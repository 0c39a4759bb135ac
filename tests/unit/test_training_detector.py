"""Labels, pictures and measures of the detector's training; needs neither PyTorch nor ONNX."""

import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.errors import DataError, SettingsError
from moodline.training.detector.config import DetectorTraining, load_training
from moodline.training.detector.graph import kernel_shape, places, weight_count
from moodline.training.detector.labels import Found, PhotoLabels, load_labels, merged, overlap, suppressed
from moodline.training.detector.measure import Picture, average_precision, match, point_at, point_at_precision
from moodline.training.detector.photos import Corrections, Photo, Rules, is_held_out, load_corrections, load_photos
from moodline.training.detector.sampling import Sampler, SamplingConfig, moved_boxes, worsened
from moodline.training.detector.spec import SPECS

NOTHING = np.empty((0, 4), np.float32)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 5)


# labels


def test_a_face_in_both_mirrors_of_one_scale_keeps_its_score_whatever_other_scales_say() -> None:
    face, same = (10, 10, 50, 60, 0.9), (12, 10, 52, 60, 0.7)
    found = merged([Found(1.0, boxes(face)), Found(1.0, boxes(same)), Found(2.0, boxes()), Found(2.0, boxes())])
    assert found[:, 4] == pytest.approx([0.8])
    assert found[0, :4] == pytest.approx([10.875, 10, 50.875, 60], abs=1e-4)  # weighted by score


def test_a_face_that_one_mirror_misses_loses_half_its_score() -> None:
    found = merged([Found(1.0, boxes((10, 10, 50, 60, 0.9))), Found(1.0, boxes())])
    assert found[:, 4] == pytest.approx([0.45])


def test_a_scale_that_barely_sees_a_face_has_no_say_in_its_box() -> None:
    good, poor = (10, 10, 50, 60, 0.9), (4, 10, 44, 60, 0.5)
    found = merged([Found(1.0, boxes(good)), Found(1.0, boxes(good)), Found(2.0, boxes(poor)), Found(2.0, boxes(poor))])
    assert found[0] == pytest.approx(good)


def test_faces_apart_stay_apart_and_come_best_first() -> None:
    both = boxes((0, 0, 20, 20, 0.6), (100, 0, 130, 30, 0.9))
    found = merged([Found(1.0, both), Found(1.0, both)])
    assert found[:, 0].tolist() == [100, 0]
    assert len(merged([Found(1.0, boxes())])) == 0


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    rows = boxes((0, 0, 10, 10, 0.5), (1, 0, 11, 10, 0.9), (50, 50, 60, 60, 0.4))
    assert suppressed(rows, 0.3).tolist() == [1, 2]
    assert suppressed(rows, 0.95).tolist() == [1, 0, 2]


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.floats(1, 40), st.floats(1, 40))
def test_overlap_is_whole_with_itself_and_the_same_both_ways(values: list[float], wide: float, high: float) -> None:
    one = np.array([[values[0], values[1], values[0] + wide, values[1] + high]])
    other = np.array([[values[2], values[3], values[2] + high, values[3] + wide]])
    assert overlap(one, one)[0, 0] == pytest.approx(1)
    assert overlap(one, other)[0, 0] == pytest.approx(overlap(other, one)[0, 0])
    assert 0 <= overlap(one, other)[0, 0] <= 1 + 1e-9


def test_a_line_that_was_cut_off_is_left_out_and_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    line = msgspec.json.encode(PhotoLabels("a.jpg", 10, 8, ((1.0, 2.0, 5.0, 6.0, 0.9),)))
    path.write_bytes(line + b"\n" + line[:20])
    assert (load_labels(path)["a.jpg"].array() == boxes((1, 2, 5, 6, 0.9))).all()
    path.write_bytes(b"{}\n")
    with pytest.raises(DataError, match="not a label file"):
        load_labels(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_labels(tmp_path / "none")


# photos


def make_photo(name: str = "faces/x/1.jpg", side: int = 200, rows: np.ndarray | None = None) -> Photo:
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Photo(name, image, boxes((80, 80, 120, 130, 0.9)) if rows is None else rows)


def test_small_and_doubtful_boxes_are_not_taught() -> None:
    rows = boxes((0, 0, 40, 50, 0.9), (0, 0, 8, 11, 0.9), (0, 0, 40, 50, 0.69), (0, 0, 8, 12, 0.7))
    assert Rules().taught(rows).tolist() == [True, False, False, True]


def test_corrections_take_boxes_away_or_make_them_doubtful() -> None:
    corrections = Corrections({"a": [(25, 25)]}, {"a": [(75, 25)]})
    rows = boxes((0, 0, 50, 50, 0.9), (50, 0, 100, 50, 0.9), (0, 50, 50, 100, 0.9))
    assert corrections.applied("a", rows)[:, [0, 1, 4]].tolist() == [[50, 0, 0], [0, 50, pytest.approx(0.9)]]
    assert corrections.applied("b", rows).tolist() == rows.tolist()
    assert rows[1, 4] == pytest.approx(0.9), "the labels themselves stay as they are"


def test_the_shipped_corrections_are_read() -> None:
    corrections = load_corrections()
    assert sum(map(len, corrections.not_a_face.values())) > 100
    assert sum(map(len, corrections.doubtful.values())) > 30


def test_photos_are_held_out_by_their_name_and_never_in_both_parts(tmp_path: Path) -> None:
    names = [f"faces/{group}/{number:03d}.jpg" for group in ("shanghaitech", "streets") for number in range(60)]
    held = [name for name in names if is_held_out(name)]
    assert 8 <= sum("shanghaitech" in name for name in held) <= 24
    assert 0 < sum("streets" in name for name in held) <= 8
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    lines = [msgspec.json.encode(PhotoLabels(name, 8, 8, ())) + b"\n" for name in names[:-1]]
    (tmp_path / "l").write_bytes(b"".join(lines))
    parts = [{photo.name for photo in load_photos(tmp_path / "a.tar", tmp_path / "l", held_out)} for held_out in (True, False)]
    assert parts[0] == set(held) - {names[-1]}
    assert parts[0] | parts[1] == set(names[:-1]), "a photo without labels is in neither"
    assert not parts[0] & parts[1]


# pictures


def test_a_box_moves_with_the_picture_and_says_how_much_of_it_is_left() -> None:
    twice = np.array([[2.0, 0, -100], [0, 2, 0]])
    moved, seen = moved_boxes(boxes((40, 10, 60, 30, 1)), twice, 2.0, (200, 200))
    assert moved.tolist() == [[0, 20, 20, 60]]
    assert seen == pytest.approx([0.5])


@given(st.integers(0, 400))
def test_faces_are_where_the_labels_say(number: int) -> None:
    """The photo is black but for a bright face: the picture is bright in its boxes and dark elsewhere."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[80:130, 80:120] = 255
    photo = Photo("x", image, boxes((80, 80, 120, 130, 0.9)))
    config = SamplingConfig(mosaic=0.5, rotation_deg=0.0, grey=0, blur=0, jpeg=0, dark=0, noise=0, coarse=0)
    sample = Sampler([photo], Rules(), config, 3).sample(0, number)
    assert sample.image.shape == (320, 320, 3)
    bright = sample.image.max(2) > int(sample.image.max()) * 0.6
    known = np.zeros((320, 320), bool)
    for x1, y1, x2, y2 in np.concatenate([sample.faces, sample.ignored]).round().astype(int).tolist():
        assert 0 <= x1 <= x2 <= 320
        assert 0 <= y1 <= y2 <= 320
        known[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
    # One picture in ten is turned by up to 45 degrees, so corners of the bright square leave the upright box.
    assert bright[~known].mean() < 0.12
    for x1, y1, x2, y2 in sample.faces.round().astype(int).tolist():
        assert max(x2 - x1, y2 - y1) >= 7


def test_a_number_gives_the_same_picture_and_another_number_or_epoch_another() -> None:
    def sampler() -> Sampler:
        return Sampler([make_photo()], Rules(), SamplingConfig(), 3)

    first, again = sampler().sample(0, 5), sampler().sample(0, 5)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.faces.tolist() == again.faces.tolist()
    assert sampler().sample(0, 6).image.tobytes() != first.image.tobytes()
    assert sampler().sample(1, 5).image.tobytes() != first.image.tobytes()


def test_pictures_without_any_face_are_made_as_well() -> None:
    sample = Sampler([make_photo(rows=boxes())], Rules(), SamplingConfig(), 3).sample(0, 0)
    assert sample.faces.shape == (0, 4)
    assert sample.ignored.shape == (0, 4)


def test_doubtful_faces_are_ignored_not_taught() -> None:
    sampler = Sampler([make_photo(rows=boxes((60, 60, 140, 140, 0.5)))], Rules(), SamplingConfig(mosaic=0), 3)
    samples = [sampler.sample(0, number) for number in range(30)]
    assert sum(len(sample.faces) for sample in samples) == 0
    assert sum(len(sample.ignored) for sample in samples) > 10


def test_every_way_of_making_a_picture_worse_keeps_its_shape() -> None:
    config = SamplingConfig(grey=1, blur=1, jpeg=1, dark=1, noise=1, coarse=1)
    image = make_photo(side=320).image
    for seed in range(20):
        worse = worsened(image, config, np.random.default_rng(seed))
        assert worse.shape == image.shape
        assert worse.dtype == np.uint8


# measures


def test_each_face_is_found_once_and_the_best_score_chooses_first() -> None:
    known = np.array([[0, 0, 10, 10]], np.float32)
    found = np.array([[0, 0, 10, 9, 0.8], [0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.7]])
    matches = match([Picture(found, known, NOTHING)], 0.5)
    assert matches.score.tolist() == [0.9, 0.8, 0.7]
    assert matches.right.tolist() == [True, False, False]
    assert matches.iou.tolist() == [1, 0, 0]
    assert point_at(matches, 0.75) == (0.75, 1.0, 0.5, 1.0)


def test_what_is_found_in_an_ignored_region_counts_neither_way() -> None:
    found = np.array([[0, 0, 10, 10, 0.9], [52, 52, 58, 58, 0.8]])
    known, ignored = np.array([[0, 0, 10, 10.0]]), np.array([[50, 50, 60, 60.0]])
    assert match([Picture(found, known, ignored)], 0.5).right.tolist() == [True]
    assert match([Picture(found, known, NOTHING)], 0.5).right.tolist() == [True, False]


def test_what_is_smaller_than_the_known_faces_counts_only_where_it_is_right() -> None:
    known = np.array([[0, 0, 10, 10.0]])
    found = np.array([[0, 0, 9, 9, 0.9], [50, 50, 59, 59, 0.8], [70, 70, 70 + 9, 80, 0.7]])
    assert match([Picture(found, known, NOTHING, 10.0)], 0.5).right.tolist() == [True, False]
    assert match([Picture(found, known, NOTHING)], 0.5).right.tolist() == [True, False, False]


def test_recall_is_of_all_pictures_also_of_those_where_nothing_is_found() -> None:
    known = np.array([[0, 0, 10, 10.0]])
    pictures = [Picture(np.array([[0, 0, 10, 10, 0.9]]), known, NOTHING), Picture(np.empty((0, 5)), known, NOTHING)]
    assert point_at(match(pictures, 0.5), 0.5).recall == 0.5
    assert point_at(match([pictures[1]], 0.5), 0.5) == (0.5, 0.0, 0.0, 0.0)


def test_the_point_at_a_precision_is_the_one_of_most_recall() -> None:
    known = np.array([[20 * index, 0, 20 * index + 10, 10] for index in range(4)], np.float32)
    rows = [[*known[0], 0.9], [100, 100, 110, 110, 0.8], [*known[1], 0.7], [*known[2], 0.6], [200, 200, 210, 210, 0.5]]
    matches = match([Picture(np.array(rows), known, NOTHING)], 0.5)
    assert point_at_precision(matches, 0.7)[:3] == (0.6, 0.75, 0.75)
    assert point_at_precision(matches, 0.9)[:3] == (0.9, 0.25, 1.0)
    assert point_at_precision(match([Picture(np.array(rows[1:2]), known, NOTHING)], 0.5), 0.9).recall == 0
    assert average_precision(matches) == pytest.approx((1 + 0.75 + 0.75) / 4)


# the network's table and the configuration


def test_the_shipped_network_is_small() -> None:
    assert 50_000 <= weight_count(SPECS["small"]) <= 150_000
    shapes = {place.name: kernel_shape(place) for place in places(SPECS["small"])}
    assert shapes["stem.0"] == (16, 3, 3, 3)
    assert shapes["stage32.1"] == (48, 1, 5, 5)
    assert shapes["answer16"] == (5, 32, 1, 1)


def test_the_shipped_configuration_is_read_and_unknown_names_are_refused(tmp_path: Path, repo: Path) -> None:
    assert load_training(repo / "training/detector/configs/small.toml").network == "small"
    path = tmp_path / "c.toml"
    path.write_text("epochs = 3\n[sampling]\nmosaic = 0.1\n[rules]\nleast_score = 0.5\n")
    wanted = load_training(path)
    assert (wanted.epochs, wanted.sampling.mosaic, wanted.rules.least_score) == (3, 0.1, 0.5)
    assert wanted.batch == DetectorTraining().batch
    for text in ("epoch = 3", "[sampling]\nmosaik = 1", "epochs = 0", "="):
        path.write_text(text)
        with pytest.raises(SettingsError):
            load_training(path)
