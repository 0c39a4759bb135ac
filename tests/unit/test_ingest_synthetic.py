"""The synthetic scene: the same URL gives the same pixels; faces come and go."""

import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from moodline.services.ingest.file import synthetic
from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import InvalidStreamError, SourceError
from moodline.shared.settings import IngestSettings

SETTINGS = IngestSettings()


def pictures(url: str, each: int = 10) -> list[np.ndarray]:
    source = open_source(url, SETTINGS)
    return [frame.to_bgr() for number, frame in enumerate(source.frames()) if number % each == 0]


def test_frames_have_exact_times_and_the_scene_ends() -> None:
    source = open_source("synthetic://astronaut?seconds=2&fps=30000/1001", SETTINGS)
    stamps = [frame.pts_s for frame in source.frames()]
    assert stamps == [Fraction(1001 * number, 30_000) for number in range(59)]
    assert source.end_s == Fraction(1001 * 59, 30_000)
    assert (source.info.width, source.info.height, source.info.fps) == (640, 480, Fraction(30_000, 1001))


def test_same_url_same_pixels_other_seed_other_pixels() -> None:
    one, again = (
        pictures("synthetic://astronaut?seconds=2&faces=2&seed=1"),
        pictures("synthetic://astronaut?seconds=2&faces=2&seed=1"),
    )
    other = pictures("synthetic://astronaut?seconds=2&faces=2&seed=2")
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(picture.shape == (480, 640, 3) and picture.dtype == np.uint8 for picture in one)


def test_a_picture_does_not_depend_on_which_others_were_drawn() -> None:
    url = "synthetic://astronaut?seconds=2&faces=1&seed=3"
    assert np.array_equal(pictures(url, each=40)[1], pictures(url, each=10)[4])


def test_a_face_moves_leaves_and_comes_back() -> None:
    empty = pictures("synthetic://astronaut?seconds=20&faces=0&seed=5", each=5)
    scene = pictures("synthetic://astronaut?seconds=20&faces=1&seed=5", each=5)
    # How much of the scene the face covers; backdrops are equal up to the tint that the seed draws.
    covered = [
        np.mean(np.abs(with_face.astype(int) - without).max(axis=2) > 70) for with_face, without in zip(scene, empty, strict=True)
    ]
    assert max(covered) > 0.08
    gone = [share < 0.01 for share in covered]
    runs = [gone[0], *(now for before, now in pairwise(gone) if now != before)]
    assert runs.count(True) >= 1
    assert runs.count(False) >= 2


@pytest.mark.parametrize(
    "query",
    [
        "seconds=0",
        "seconds=-1",
        "seconds=1.5",
        "seconds=86401",
        "fps=0",
        "fps=all",
        "fps=241",
        "faces=9",
        "seed=x",
        "seed=",
        "colour=red",
    ],
)
def test_options_out_of_range_are_refused(query: str) -> None:
    with pytest.raises(InvalidStreamError) as caught:
        open_source(f"synthetic://astronaut?{query}", SETTINGS)
    assert caught.value.field == "url"


@pytest.mark.parametrize("url", ["synthetic://", "synthetic://coffee", "synthetic://astronaut/x"])
def test_unknown_scenes_are_not_found(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(url, SETTINGS)
    assert caught.value.reason == "not_found"


def test_without_scikit_image_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic._portrait.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(SourceError, match=r"moodline\[sample\]"):
        open_source("synthetic://astronaut", SETTINGS)
