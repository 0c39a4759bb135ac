"""The detector that ships keeps what its card says."""

from pathlib import Path

import numpy as np
import pytest

from moodline.models import models_dir
from moodline.services.detector.own import OwnDetector, load_manifest
from moodline.services.detector.yunet import YuNetDetector
from moodline.training.detector.card import card
from moodline.training.detector.export import CARD, figures, search_labelled
from moodline.training.detector.labels import overlap
from moodline.training.detector.validate import load_labelled
from tests.unit.test_detector_own import picture

FOLDER = models_dir() / "face-small"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no detector ships yet")


def test_the_card_says_what_the_manifest_says_and_the_weights_are_small() -> None:
    manifest = load_manifest(FOLDER)
    assert (FOLDER / CARD).read_text() == card(manifest)
    assert (FOLDER / manifest.weights).stat().st_size < 2_000_000


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 1), (31, 33), (6000, 8000)])
def test_images_of_any_size_are_searched(shape: tuple[int, int]) -> None:
    assert OwnDetector(FOLDER, None, 320).detect(np.zeros((*shape, 3), np.uint8)).shape == (0, 5)
    assert OwnDetector(FOLDER, None, 320).detect(picture(*shape)).shape[1] == 5


@pytest.mark.material
def test_the_cards_figures_are_reached_again(material: Path) -> None:
    manifest = load_manifest(FOLDER)
    labelled = load_labelled(material / "data" / "faces-labelled.tar.gz")
    reached = figures(search_labelled(FOLDER, labelled), manifest.threshold, len(labelled))
    assert reached == pytest.approx(manifest.metrics, abs=0.004)  # bits differ between kinds of processors


@pytest.mark.material
def test_boxes_are_those_of_the_teacher(material: Path) -> None:
    own, yunet = OwnDetector(FOLDER, None, 320), YuNetDetector(material / "models" / "face_detection_yunet_n_640.onnx", 0.7, 320)
    shared = []
    for photo in load_labelled(material / "data" / "faces-labelled.tar.gz")[::4]:
        best = overlap(yunet.detect(photo.image), own.detect(photo.image)).max(1, initial=0)
        shared += best[best > 0.4].tolist()
    assert len(shared) > 60
    assert np.mean(shared) >= 0.8
