"""Pictures in, faces out: with the real detector and network, over the API."""

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.services.api.context import Intake
from moodline.services.runtime.bootstrap import open_picture_classifier
from moodline.shared.classify import ClassifiedPicture
from moodline.shared.emotions import EMOTIONS
from moodline.shared.settings import ClassifySettings
from tests.support.api import ApiWorld

ROUTE = "/api/v1/classify"
skimage = pytest.importorskip("skimage.data")


def encoded(kind: str = ".jpg") -> bytes:
    done, data = cv2.imencode(kind, cv2.cvtColor(skimage.astronaut(), cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    overrides = {"classify": ClassifySettings(max_pictures=3, max_bytes=2_000_000, max_waiting=2)}
    with ApiWorld(tmp_path_factory.mktemp("classify"), overrides=overrides) as world:
        intake = Intake(pictures=open_picture_classifier(world.settings, world.store))
        object.__setattr__(world.app.state.context, "intake", intake)
        yield world


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_one_picture_is_the_body(world: ApiWorld, kind: str) -> None:
    answer = world.http.post(ROUTE, content=encoded(kind), headers={"content-type": f"image/{kind[1:]}"})
    assert answer.status_code == 200, answer.text
    (picture,) = answer.json()["pictures"]
    assert (picture["name"], picture["width"], picture["height"], picture["model"]) == ("", 512, 512, "fer-2-small")
    (face,) = picture["faces"]
    left, top, right, bottom = face["box"]
    assert 150 < left < right < 320
    assert 20 < top < bottom < 240
    assert face["score"] > 0.5
    assert list(face["emotions"]) == list(EMOTIONS)
    assert sum(face["emotions"].values()) == pytest.approx(1, abs=1e-4)
    assert face["dominant"] == max(face["emotions"], key=face["emotions"].get)


def test_several_pictures_are_files_of_a_form(world: ApiWorld) -> None:
    blank = cv2.imencode(".png", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    answer = world.http.post(ROUTE, files=[("image", ("a.jpg", encoded())), ("image", ("b.png", blank))])
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["pictures"]
    assert (first["name"], len(first["faces"]), second["name"], second["faces"]) == ("a.jpg", 1, "b.png", [])
    assert (second["width"], second["height"]) == (60, 40)
    alone = world.http.post(ROUTE, content=encoded()).json()["pictures"][0]
    assert alone["faces"] == first["faces"], "a picture's answer does not depend on its neighbours"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"not a picture", 422, "invalid_image"),
        (b"GIF89a" + bytes(40), 422, "invalid_image"),
        (b"\xff\xd8\xff" + bytes(100), 422, "invalid_image"),
        (encoded()[:-2000], 422, "invalid_image"),
        (encoded(".png")[:-2000], 422, "invalid_image"),
        (encoded(".webp")[:-2000], 422, "invalid_image"),
        (bytes(2_000_001), 413, "pictures_too_large"),
    ],
)
def test_what_cannot_be_used_is_refused(world: ApiWorld, body: bytes, status: int, code: str) -> None:
    answer = world.http.post(ROUTE, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_picture_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(world: ApiWorld) -> None:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    answer = world.http.post(ROUTE, content=head)
    assert "60000x60000 px" in answer.json()["error"]["message"]


def test_forms_that_cannot_be_read_are_refused(world: ApiWorld) -> None:
    many = [("image", (f"{n}.jpg", b"x")) for n in range(4)]
    assert world.http.post(ROUTE, files=many).status_code == 422
    assert world.http.post(ROUTE, content=b"x", headers={"content-type": "multipart/form-data"}).status_code == 422
    assert world.http.post(ROUTE, data={"a": "b"}, files=[("image", ("", b""))]).status_code == 422
    mixed = world.http.post(ROUTE, files=[("image", ("a.jpg", encoded())), ("image", ("b.jpg", b"x"))])
    assert "picture 2" in mixed.json()["error"]["message"]


def test_who_comes_when_all_places_are_taken_is_told_to_come_again(world: ApiWorld) -> None:
    ctx, real = world.app.state.context, world.app.state.context.intake
    working, go_on = threading.Semaphore(0), threading.Event()

    class Slow:
        def classify(self, pictures: list[bytes]) -> list[ClassifiedPicture]:
            working.release()
            assert go_on.wait(30)
            return [ClassifiedPicture(width=1, height=1, faces=(), model="m") for _ in pictures]

    object.__setattr__(ctx, "intake", Intake(pictures=Slow()))
    threads = [threading.Thread(target=world.http.post, args=(ROUTE,), kwargs={"content": b"x"}) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        assert all(working.acquire(timeout=30) for _ in threads)
        answer = world.http.post(ROUTE, content=b"x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_busy")
        assert int(answer.headers["retry-after"]) > 0
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
        object.__setattr__(ctx, "intake", real)


def test_without_models_the_answer_says_what_to_install(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        answer = world.http.post(ROUTE, content=encoded())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert "moodline[" in answer.json()["error"]["message"]
