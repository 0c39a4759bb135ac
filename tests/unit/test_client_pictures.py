"""Pictures and single faces by the client, on the real application."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from moodline import BadAnswerError, Client, ClientError, ConflictError, InvalidRequestError, NotFoundError, ServiceError
from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.services.report.faces import FACE_FIELDS
from moodline.shared.classify import ClassifiedPicture, PictureFace
from moodline.shared.errors import InvalidImageError
from moodline.shared.previews import Preview, PreviewBoard
from moodline.shared.settings import ClassifySettings, PreviewSettings
from tests.support.api import ApiWorld, AsgiTransport
from tests.support.clocks import StubClock
from tests.support.faces import KEPT_FACES, keep_faces

HAPPY = (0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.1)


class StubClassifier:
    """Finds a happy face in every picture but those that begin with "no"."""

    def classify(self, pictures: Sequence[bytes]) -> list[ClassifiedPicture]:
        for at, picture in enumerate(pictures):
            if picture == b"broken":
                raise InvalidImageError(at, "is no picture")
        face = PictureFace(box=(1.0, 2.0, 3.0, 4.5), score=0.9, quality=0.8, probabilities=HAPPY)
        return [
            ClassifiedPicture(width=640, height=480, faces=() if picture[:2] == b"no" else (face,), model="fer-seed")
            for picture in pictures
        ]


@pytest.fixture
def board() -> PreviewBoard:
    return PreviewBoard(StubClock())


@pytest.fixture
def world(tmp_path: Path, board: PreviewBoard) -> Iterator[ApiWorld]:
    overrides = KEPT_FACES | {"preview": PreviewSettings(fps=30), "classify": ClassifySettings(max_pictures=3)}
    intake = Intake(pictures=StubClassifier(), previews=board)
    with ApiWorld(tmp_path, intake=intake, overrides=overrides) as world:
        yield world


@pytest.fixture
def client(world: ApiWorld) -> Iterator[Client]:
    with Client("http://localhost", clock=world.clock, transport=AsgiTransport(world.app)) as client:
        yield client


def test_pictures_are_classified(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a photo.jpg"
    path.write_bytes(b"a face")
    first, second, third = client.classify(path, b"nobody", str(path))
    assert (first.name, first.width, first.height, first.model) == ("a photo.jpg", 640, 480, "fer-seed")
    (face,) = first.faces
    assert (face.box, face.dominant, face.emotions["happy"]) == ((1.0, 2.0, 3.0, 4.5), "happy", 0.9)
    assert second.faces == []
    assert third == first


def test_what_cannot_be_classified_says_why(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="picture 2"):
        client.classify(b"x", b"broken")
    with pytest.raises(InvalidRequestError):
        client.classify(b"1", b"2", b"3", b"4")
    with pytest.raises(ClientError, match="at least one picture"):
        client.classify()
    with pytest.raises(ClientError, match=r"nowhere\.jpg cannot be read"):
        client.classify(tmp_path / "nowhere.jpg")


def test_a_snapshot(client: Client, board: PreviewBoard) -> None:
    client.add_stream("door", "push://")
    with pytest.raises(ConflictError, match="preview"):
        client.snapshot("door")
    client.change_stream("door", preview=True)
    board.publish(Preview(stream_id="door", time_us=1, jpeg=b"a picture"))
    assert client.snapshot("door") == b"a picture"
    assert client.snapshot("door", boxes=True) == b"a picture", "nobody is in it"
    with pytest.raises(NotFoundError):
        client.snapshot("yard")


def test_watching_a_stream(world: ApiWorld, board: PreviewBoard) -> None:
    with ApiServer(world.app, "127.0.0.1", 0) as server, Client(server.url) as client:
        client.add_stream("door", "push://", preview=True)
        first = b"--moodline-frame\r\n\r\n" + bytes(300_000)
        board.publish(Preview(stream_id="door", time_us=1, jpeg=first))
        with client.watch("door") as pictures:
            assert next(pictures) == first
            board.publish(Preview(stream_id="door", time_us=2, jpeg=b"second"))
            assert next(pictures) == b"second"
            client.change_stream("door", preview=False)
            assert list(pictures) == [], "it ends"
        with pytest.raises(ConflictError):
            next(client.watch("door"))


@pytest.mark.parametrize("body", [b"x" * 70_000, b"--b\r\nno length\r\n\r\n", b"--b\r\nContent-Length: -1\r\n\r\n"])
def test_what_is_no_stream_of_pictures(body: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with Client("http://localhost", transport=transport) as client, pytest.raises(BadAnswerError):
        next(client.watch("door"))


def test_faces_come_page_by_page(world: ApiWorld, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_faces(world)
    whole = list(client.list_faces("lobby"))
    monkeypatch.setattr("moodline.client._pictures._PAGE", 7)
    assert list(client.list_faces("lobby")) == whole
    assert {row.frame for row in whole} == set(range(30))
    first, empty = whole[0], next(row for row in whole if row.track is None)
    assert (first.track, first.box, first.readable, first.raw and first.raw["happy"]) == (1, (0.0, 0.0, 160.0, 180.0), True, 1.0)
    assert empty.box is empty.raw is empty.readable is None
    window = list(client.list_faces("lobby", start="2026-05-01T12:00:01Z", end="2026-05-01T12:00:02Z"))
    assert {row.frame for row in window} == {5, 6, 7, 8, 9}


def test_faces_as_a_frame(world: ApiWorld, client: Client) -> None:
    pytest.importorskip("pandas")
    keep_faces(world)
    frame = client.faces_frame("lobby")
    assert tuple(frame.columns) == FACE_FIELDS, "as the command line writes them"
    assert len(frame) == len(list(client.list_faces("lobby")))
    assert str(frame["time"].dtype).endswith("UTC]")
    assert frame["raw_happy"].dtype == "float64"
    assert frame["track"].isna().sum() == 7
    empty = client.faces_frame("lobby", start="2020-01-01T00:00:00Z", end="2020-01-02T00:00:00Z")
    assert (len(empty), tuple(empty.columns)) == (0, FACE_FIELDS)
    assert (empty["raw_happy"].dtype, str(empty["track"].dtype)) == ("float64", "Int64")


def test_faces_that_are_not_kept(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world, Client("http://localhost", transport=AsgiTransport(world.app)) as client:
        world.add("lobby")
        with pytest.raises(NotFoundError, match="MOODLINE_STORE_RETENTION_FACES_S"):
            list(client.list_faces("lobby"))
        with pytest.raises(ServiceError, match="models"):
            client.classify(b"x")
