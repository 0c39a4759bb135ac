"""One key, however busy, leaves room for the others; one picture, however made, does not fill the memory."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from moodline.services.api import PREFIX
from moodline.services.api.bodies import chunks_of
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.ingest.push.picture import checked_picture
from moodline.shared.errors import FrameError, TooSlowError
from moodline.shared.settings import ApiSettings, QuotasSettings, load_settings
from tests.support.access import make_key, with_key
from tests.support.api import ApiWorld


def test_a_key_has_a_bounded_number_of_streams(tmp_path: Path) -> None:
    quotas = {"quotas": QuotasSettings(streams_per_key=3)}
    with ApiWorld(tmp_path, api=ApiSettings(access="keys"), overrides=quotas) as world:
        greedy, other = (with_key(world, make_key(world, name, Role.OPERATOR)) for name in ("greedy", "other"))

        def add(client: Any, name: str) -> int:
            return int(client.post(f"{PREFIX}/streams", json={"id": name, "url": "clip.mp4"}).status_code)

        assert [add(greedy, f"s{number}") for number in range(5)] == [201, 201, 201, 403, 403]
        assert add(other, "mine") == 201
        assert greedy.delete(f"{PREFIX}/streams/s0").status_code == 204
        assert add(greedy, "s9") == 201


def test_many_at_the_same_time_are_no_more_than_a_key_may_have(tmp_path: Path) -> None:
    quotas = {"quotas": QuotasSettings(streams_per_key=3, rules_per_key=2, sessions_per_key=4)}
    api = ApiSettings(access="keys")
    with (
        ApiWorld(tmp_path, api=api, overrides=quotas) as world,
        ApiServer(world.app, "127.0.0.1", 0) as server,
        ExitStack() as stack,
    ):
        greedy, other = (make_key(world, name, Role.OPERATOR) for name in ("greedy", "other"))
        pool = stack.enter_context(ThreadPoolExecutor(8))
        client = stack.enter_context(httpx.Client(base_url=f"{server.url}{PREFIX}", trust_env=False, timeout=60))

        def post(path: str, body: dict[str, Any], key: str = greedy) -> int:
            return client.post(path, json=body, headers={"authorization": f"Bearer {key}"}).status_code

        def add(number: int) -> tuple[int, int, int]:
            stream = post("/streams", {"id": f"s{number}", "url": "clip.mp4", "labels": {"a": "b"}})
            rule = post("/alerts/rules", {"id": f"r{number}", "kind": "offline", "label": "a"})
            return stream, rule, post("/session", {"key": greedy})

        streams, rules, sessions = zip(*pool.map(add, range(24)), strict=True)
        assert (streams.count(201), rules.count(201), sessions.count(200)) == (3, 2, 24)
        assert len(world.store.list_entries("sessions")) == 4
        assert post("/alerts/rules", {"id": "mine", "kind": "offline", "label": "a"}, other) == 201


def test_the_files_of_one_key_leave_room_on_the_disk_for_others(tmp_path: Path) -> None:
    quotas = {"quotas": QuotasSettings(upload_bytes_per_key=1000)}
    with ApiWorld(tmp_path, api=ApiSettings(access="keys"), overrides=quotas) as world:
        greedy, other = (with_key(world, make_key(world, name, Role.OPERATOR)) for name in ("greedy", "other"))

        def send(client: Any, size: int, **options: Any) -> tuple[int, str]:
            answer = client.post(f"{PREFIX}/uploads", params={"name": "a.mp4", **options}, content=b"x" * size)
            return answer.status_code, "" if answer.status_code == 201 else answer.json()["error"]["code"]

        assert send(greedy, 400) == (201, "")
        assert send(greedy, 500, stream="mine") == (201, "")
        assert send(greedy, 200) == (403, "quota_exceeded")
        assert send(other, 900) == (201, "")
        assert greedy.delete(f"{PREFIX}/streams/mine").status_code == 204
        assert send(greedy, 200) == (201, "")


def test_uploads_of_one_key_leave_places_for_others(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys")) as world:
        greedy, other = (with_key(world, make_key(world, name, Role.OPERATOR)) for name in ("greedy", "other"))
        concurrency = world.app.state.context.concurrency
        with concurrency.hold("uploads of 'greedy'", 2), concurrency.hold("uploads of 'greedy'", 2):
            refused = greedy.post(f"{PREFIX}/uploads", params={"name": "a.mp4"}, content=b"x")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_busy")
            assert other.post(f"{PREFIX}/uploads", params={"name": "a.mp4"}, content=b"x").status_code != 429


def test_a_body_that_drips_within_its_time_out_is_let_go() -> None:
    class Dripping:
        async def stream(self) -> AsyncIterator[bytes]:
            for _ in range(200):
                await asyncio.sleep(0.01)
                yield b"x"

    async def take() -> None:
        async for _ in chunks_of(Dripping(), 0.1, 64 * 1024):  # type: ignore[arg-type]  # a request's stream alone
            pass

    with pytest.raises(TooSlowError, match="too slowly"):
        asyncio.run(take())


@pytest.mark.parametrize(
    ("size", "progressive", "taken"), [((8160, 6112), True, False), ((8160, 6112), False, True), ((3840, 2160), True, True)]
)
def test_a_progressive_picture_is_as_large_as_can_be_held(size: tuple[int, int], progressive: bool, taken: bool) -> None:
    """Its coefficients are held whole: 584 kB of a single grey became 300 MB."""
    file = BytesIO()
    Image.new("L", size).save(file, "JPEG", progressive=progressive)
    assert file.tell() < 2_000_000
    if taken:
        checked_picture(file.getvalue(), 1280, load_settings())
    else:
        with pytest.raises(FrameError, match="progressive"):
            checked_picture(file.getvalue(), 1280, load_settings())
