"""The adapter of Moodline's own detector, with networks made for the purpose."""

import hashlib
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from moodline.services.detector.factory import open_detector
from moodline.services.detector.own import FORMAT, MANIFEST, Manifest, OwnDetector, faces_of, load_manifest
from moodline.services.detector.tiles import TiledDetector
from moodline.shared.errors import ImageError, ModelError
from moodline.shared.openvino_runtime import bfloat16_agrees
from moodline.shared.settings import DetectorSettings
from moodline.training.detector.graph import build_graph, kernel_shape, places
from moodline.training.detector.spec import SPECS

SPEC = SPECS["tiny"]


def empty_levels(high: int = 64, wide: int = 96) -> list[np.ndarray]:
    levels = [np.zeros((5, high // stride, wide // stride), np.float32) for stride in (8, 16, 32)]
    for level in levels:
        level[0] = -9
    return levels


def test_a_cell_says_where_a_face_is() -> None:
    levels = empty_levels()
    levels[1][:, 2, 3] = [2.0, *np.log([1.0, 0.5, 2.0, 1.5])]
    (row,) = faces_of(levels, 0.5)
    # The cell's centre is (3.5, 2.5) strides of 16 px.
    assert row == pytest.approx([56 - 16, 40 - 8, 56 + 32, 40 + 24, 1 / (1 + np.exp(-2))])


def test_scores_below_the_threshold_are_no_faces() -> None:
    levels = empty_levels()
    levels[0][0, 1, 1] = 0.0
    assert len(faces_of(levels, 0.49)) == 1
    assert len(faces_of(levels, 0.51)) == 0
    assert len(faces_of(levels, 1.0)) == 0
    assert len(faces_of(empty_levels(), 0.5)) == 0


def test_of_faces_that_overlap_the_best_is_kept_and_neighbours_stay() -> None:
    levels = empty_levels()
    levels[0][:, 4, 4] = [1.0, 1, 1, 1, 1]
    levels[0][:, 4, 6] = [3.0, 1, 1, 1, 1]  # a third of the way over: the other one's, but too far off to have a vote
    levels[0][:, 4, 11] = [2.0, 1, 1, 1, 1]
    found = faces_of(levels, 0.5)
    assert sorted(found[:, 0].round(1).tolist()) == pytest.approx([52 - 8 * np.e, 92 - 8 * np.e], abs=0.06)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_boxes_that_nearly_agree_have_a_vote_by_the_square_of_their_scores(threshold: float) -> None:
    levels = empty_levels()
    levels[0][:, 4, 4] = [3.0, 1, 1, 1, 1]
    levels[0][:, 4, 5] = [1.0, 1, 1, 1, 1]  # 8 px to the right
    levels[0][:, 5, 4] = [-0.5, 1, 1, 1, 1]  # 8 px below, with less than half the score: has none
    best, second, _ = (1 / (1 + np.exp(-logit)) for logit in (3.0, 1.0, -0.5))
    right_px = 8 * second**2 / (best**2 + second**2)
    (row,) = faces_of(levels, threshold)
    reach = 8 * np.e
    assert row == pytest.approx([36 - reach + right_px, 36 - reach, 36 + reach + right_px, 36 + reach, best])


def test_wild_answers_give_finite_boxes() -> None:
    levels = empty_levels()
    levels[0][:] = 1e4
    found = faces_of(levels, 0.5)
    assert np.isfinite(found).all()


def write_model(folder: Path, network: bytes | None = None, **changes: object) -> Path:
    """Write a detector of random weights that sees faces nearly everywhere."""
    if network is None:
        pytest.importorskip("onnx", reason="the networks are made with onnx")
        rng = np.random.default_rng(1)
        weights = {}
        for place in places(SPEC):
            shape = kernel_shape(place)
            spread = np.sqrt(2 / np.prod(shape[1:])) / (255 if place.name == "stem.0" else 1)
            weights[f"{place.name}.weight"] = (rng.standard_normal(shape) * spread).astype(np.float32)
            weights[f"{place.name}.bias"] = np.zeros(shape[0], np.float32)
        network = build_graph(SPEC, weights, "made")
    folder.mkdir(exist_ok=True)
    (folder / "detector.onnx").write_bytes(network)
    manifest = Manifest(FORMAT, "made", "detector.onnx", hashlib.sha256(network).hexdigest(), 0.5, {}, {}, {})
    (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("own"))


def picture(high: int, wide: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (wide, high), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 1), (5, 5), (31, 33), (480, 640), (8000, 60), (6000, 8000)])
def test_images_of_any_size_are_searched_and_boxes_are_inside_and_best_first(folder: Path, shape: tuple[int, int]) -> None:
    high, wide = shape
    found = OwnDetector(folder, 0.3, 160).detect(picture(high, wide))
    assert found.dtype == np.float32
    assert found.shape[1] == 5
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= wide).all()
    assert (found[:, 3] <= high).all()
    assert (np.diff(found[:, 4]) <= 0).all()
    if shape == (480, 640):
        assert len(found) > 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 1), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.float32),
        np.zeros((0, 20, 3), np.uint8),
        None,
    ],
    ids=["grey", "one channel", "alpha", "float", "empty", "nothing"],
)
def test_what_is_no_image_is_refused(folder: Path, image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="an image must be uint8"):
        OwnDetector(folder, None, 320).detect(image)


def test_an_answer_depends_neither_on_earlier_images_nor_on_memory_layout(folder: Path) -> None:
    images = [picture(high, wide, seed) for seed, (high, wide) in enumerate([(90, 160), (200, 100), (33, 300), (7, 7)])]
    used = OwnDetector(folder, 0.3, 160)
    fresh = [OwnDetector(folder, 0.3, 160).detect(image).tobytes() for image in images]
    for index in (0, 1, 2, 3, 2, 0, 3, 1, 0):
        assert used.detect(images[index]).tobytes() == fresh[index]
    assert used.detect(np.asfortranarray(images[0])).tobytes() == fresh[0]


def test_a_reduced_image_has_its_boxes_in_its_own_px(folder: Path) -> None:
    small = picture(120, 160)
    large = np.repeat(np.repeat(small, 4, 0), 4, 1)
    found, expected = OwnDetector(folder, 0.3, 160).detect(large), OwnDetector(folder, 0.3, 160).detect(small)
    assert len(expected) > 0
    assert found[:, :4] == pytest.approx(4 * expected[:, :4], abs=0.01)


def test_small_faces_are_left_out_on_request(folder: Path) -> None:
    every, large = (OwnDetector(folder, 0.3, 160, least).detect(picture(160, 160)) for least in (1, 30))
    assert 0 < len(large) < len(every)
    # Widths are compared before boxes are clipped to the image.
    assert set(map(tuple, large.tolist())) <= set(map(tuple, every.tolist()))


def test_settings_open_a_folder_with_the_models_own_threshold_unless_they_say_one(folder: Path) -> None:
    image = picture(160, 160)
    own = open_detector(DetectorSettings(model=str(folder), min_face_px=4))
    assert isinstance(own, TiledDetector)
    assert isinstance(own.detector, OwnDetector)
    assert own.square_from == "longer_side"
    assert own.detect(image).tobytes() == OwnDetector(folder, 0.5, 320, 4).detect(image).tobytes()
    told = open_detector(DetectorSettings(model=str(folder), min_face_px=4, threshold=0.9))
    assert told.detect(image).tobytes() == OwnDetector(folder, 0.9, 320, 4).detect(image).tobytes()
    assert len(told.detect(image)) < len(own.detect(image))


SHAPES = [(1, 1), (8000, 1), (8000, 60), (1, 8000), (160, 90), (90, 160), (160, 160)]


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_the_processor_counts_with_the_faces_are_the_same(folder: Path, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    exact, auto = (OwnDetector(folder, 0.3, 160, precision=name).detect(image) for name in ("float32", "auto"))
    # Scores near the threshold, and equal ones that exclude each other, may fall on either side.
    assert np.abs(len(exact) - len(auto)) <= 0.1 * len(exact) + 1
    scores = [np.sort(found[:, 4])[-5:] for found in (exact, auto)]
    assert len(exact) == 0 or scores[1] == pytest.approx(scores[0], abs=0.05)


def test_where_bfloat16_counts_wrongly_float32_is_used_and_the_log_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = picture(90, 160)
    exact = OwnDetector(folder, 0.3, 160, precision="float32").detect(image).tobytes()
    monkeypatch.setattr("moodline.services.detector.own.chosen_precision", lambda *_: "bfloat16")
    monkeypatch.setattr("moodline.services.detector.own._TOLERANCE", -1.0)  # no answer is that near
    detector = OwnDetector(folder, 0.3, 160)
    assert detector.detect(image).tobytes() == exact
    assert detector.detect(image).tobytes() == exact
    assert [record.message for record in caplog.records] == ["model.bfloat16_refused"], "once for a shape"
    assert caplog.records[0].shape == "(96, 160, 3)"


def test_answers_that_are_no_numbers_agree_with_nothing() -> None:
    right = np.zeros((2, 2), np.float32)
    for wrong in (np.nan, np.inf, 0.3):
        assert not bfloat16_agrees([right, right + wrong], [right, right], 0.2, "made", "")
    assert bfloat16_agrees([right + 0.1], [right], 0.2, "made", "")


def test_a_precision_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="float16"):
        OwnDetector(folder, None, 320, precision="float16")


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no detector model in"):
        OwnDetector(tmp_path / "none", None, 320)
    with pytest.raises(ModelError, match="of format other"):
        OwnDetector(write_model(tmp_path / "a", format="other"), None, 320)
    with pytest.raises(ModelError, match="not the file that"):
        OwnDetector(write_model(tmp_path / "b", weights_sha256="0" * 64), None, 320)
    with pytest.raises(ModelError, match="not an ONNX face detector"):
        OwnDetector(write_model(tmp_path / "c", b"no network"), None, 320)
    with pytest.raises(ModelError, match=r"no detector model at .*other\.onnx"):
        OwnDetector(write_model(tmp_path / "d", weights="../../other.onnx"), None, 320)
    (tmp_path / "d" / MANIFEST).write_bytes(b"{")
    with pytest.raises(ModelError, match="is damaged"):
        load_manifest(tmp_path / "d")


def test_a_network_with_other_answers_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    values = [helper.make_tensor_value_info(f"level{stride}", 1, ["n", 3, "h", "w"]) for stride in (8, 16, 32)]
    nodes = [helper.make_node("Relu", ["image"], [value.name]) for value in values]
    graph = helper.make_graph(nodes, "other", [helper.make_tensor_value_info("image", 1, ["n", 3, "h", "w"])], values)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(ModelError, match="answers in shapes"):
        OwnDetector(write_model(tmp_path / "e", network), None, 320)
