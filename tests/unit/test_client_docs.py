"""The examples of docs/client.md run, and say what the page says; the page names every method and exception."""

import contextlib
import inspect
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import moodline
from moodline import Client, MoodlineError
from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.shared.classify import ClassifiedPicture, PictureFace
from moodline.shared.errors import StreamNotFoundError
from moodline.shared.previews import Preview, PreviewBoard
from moodline.shared.probe import Probed
from moodline.shared.push import Pushed
from moodline.shared.settings import UploadsSettings
from moodline.shared.streams import StreamSpec
from tests.support.api import NOW_US, ApiWorld, nobody, smiling
from tests.support.clocks import StubClock
from tests.support.faces import KEPT_FACES, two_frames

EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n(\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)


class Pushes:
    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        return Pushed(sampled=True, replaced=False, event_time_us=NOW_US, wait_ms=200)


def probe(path: Path) -> Probed:
    return Probed(codec="h264", width=640, height=360, source_fps="25", duration_us=4_000_000)


class Classifier:
    def classify(self, pictures: Sequence[bytes]) -> list[ClassifiedPicture]:
        face = PictureFace(box=(1.0, 2.0, 3.0, 4.5), score=0.9, quality=0.8, probabilities=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
        found = [(face,) if picture == b"a photo" else () for picture in pictures]
        return [ClassifiedPicture(width=640, height=360, faces=faces, model="fer-seed") for faces in found]


class PlayingClock(StubClock):
    """While somebody waits, the lobby's film is read."""

    world: ApiWorld

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        with contextlib.suppress(StreamNotFoundError):
            self.world.store.get("lobby")
            self.world.play("lobby", [smiling(), smiling(share=0.4), smiling(share=0.6), nobody()], more=(two_frames(),))


@pytest.fixture
def page(repo: Path) -> str:
    return (repo / "docs/client.md").read_text()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    previews = PreviewBoard(StubClock())
    intake, clock = Intake(Pushes(), prober=probe, pictures=Classifier(), previews=previews), PlayingClock()
    previews.publish(Preview(stream_id="lobby", time_us=1, jpeg=b"\xff\xd8 a picture"))
    overrides = KEPT_FACES | {"uploads": UploadsSettings(keep_free_bytes=0)}
    with ApiWorld(tmp_path, intake=intake, overrides=overrides) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        (world.media / "lobby.mp4").write_bytes(b"x")
        clock.world = world
        monkeypatch.setattr("moodline.client._client.SystemClock", lambda: clock)
        yield server


def test_the_examples_run(server: ApiServer, page: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    clip = tmp_path / "yard.mp4"
    clip.write_bytes(b"a film")
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"a photo")
    names: dict[str, object] = {"jpeg": b"\xff\xd8", "clip": clip, "photo": photo}
    examples = list(EXAMPLE.finditer(page))
    assert len(examples) == page.count("```python") == 15
    for example in examples:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(example["code"].replace("http://127.0.0.1:8000", server.url), names)
        shown = [line.rstrip() for line in said.getvalue().splitlines()]
        assert shown == (example["said"] or "").splitlines(), example["code"]
    client = names["moodline"]
    assert isinstance(client, Client)
    client.close()


def test_every_method_is_named(page: str) -> None:
    methods = [name for name in dir(Client) if not name.startswith("_") and name != "close"]
    shortened = {"get_stream", "timeline_csv", "push_frame", "get_rule", "list_rules"}
    missing = {name for name in methods if name not in page}
    assert missing <= shortened, missing - shortened


def test_every_exception_is_named(page: str) -> None:
    public = {name: getattr(moodline, name) for name in moodline.__all__}
    errors = [name for name, thing in public.items() if inspect.isclass(thing) and issubclass(thing, MoodlineError)]
    assert len(errors) > 10
    assert [name for name in errors if f"`{name}`" not in page] == []
