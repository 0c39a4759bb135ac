"""The examples of docs/client.md run, and say what the page says; the page names every method and exception."""

import contextlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import moodline
from moodline import Client, MoodlineError
from moodline.services.api.context import Intake
from moodline.services.api.server import ApiServer
from moodline.shared.errors import StreamNotFoundError
from moodline.shared.probe import Probed
from moodline.shared.push import Pushed
from moodline.shared.settings import UploadsSettings
from moodline.shared.streams import StreamSpec
from tests.support.api import NOW_US, ApiWorld, StubClock, nobody, smiling

EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n(\n```text\n(?P<said>.*?)```\n)?", re.DOTALL)


class Pushes:
    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        return Pushed(sampled=True, replaced=False, event_time_us=NOW_US, wait_ms=200)


def probe(path: Path) -> Probed:
    return Probed(codec="h264", width=640, height=360, source_fps="25", duration_us=4_000_000)


class PlayingClock(StubClock):
    """While somebody waits, the lobby's film is read."""

    world: ApiWorld

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        with contextlib.suppress(StreamNotFoundError):
            self.world.store.get("lobby")
            self.world.play("lobby", [smiling(), smiling(share=0.4), smiling(share=0.6), nobody()])


@pytest.fixture
def page(repo: Path) -> str:
    return (repo / "docs/client.md").read_text()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    intake, clock = Intake(Pushes(), prober=probe), PlayingClock()
    uploads = {"uploads": UploadsSettings(keep_free_bytes=0)}
    with ApiWorld(tmp_path, intake=intake, overrides=uploads) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        (world.media / "lobby.mp4").write_bytes(b"x")
        clock.world = world
        monkeypatch.setattr("moodline.client._client.SystemClock", lambda: clock)
        yield server


def test_the_examples_run(server: ApiServer, page: str, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    clip = tmp_path / "yard.mp4"
    clip.write_bytes(b"a film")
    names: dict[str, object] = {"jpeg": b"\xff\xd8", "clip": clip}
    examples = list(EXAMPLE.finditer(page))
    assert len(examples) == page.count("```python") == 12
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
