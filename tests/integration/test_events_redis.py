"""Live answers on a real Redis: a listener goes on at another API process than the one that it lost."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from moodline.services.api.app import create_app
from moodline.services.api.server import ApiServer
from moodline.shared.clock import SystemClock
from moodline.shared.metrics import Metrics
from moodline.shared.settings import load_settings
from moodline.shared.store import BucketValue, Store
from moodline.shared.timeline.bucket import pack
from tests.support.api import smiling
from tests.support.fixtures import Server
from tests.support.listening import Listening
from tests.support.stores import RedisBackend, Writer

pytestmark = pytest.mark.redis

FIRST = 1_777_636_800


@pytest.fixture
def redis_backend(redis_server: Server) -> Iterator[RedisBackend]:
    backend = RedisBackend(redis_server.url)
    yield backend
    backend.close()


@pytest.fixture
def servers(tmp_path: Path, redis_backend: RedisBackend) -> Iterator[list[ApiServer]]:
    """Two API processes' worth of applications, each with a store of its own."""
    with ExitStack() as stack:
        started = []
        for number in range(2):
            store = redis_backend.open()
            stack.callback(store.close)
            app = create_app(store, load_settings(data_dir=tmp_path / str(number)), Metrics(), SystemClock())
            started.append(stack.enter_context(ApiServer(app, "127.0.0.1", 0)))
        yield started


@pytest.fixture
def store(redis_backend: RedisBackend) -> Iterator[Store]:
    store = redis_backend.open()
    yield store
    store.close()


def write(writer: Writer, offset: int) -> None:
    bucket_value = BucketValue("", 1, FIRST + offset, pack(smiling(1 + offset % 9, final=False)))
    writer.write(bucket_value, last_event_time_us=(FIRST + offset) * 1_000_000, state=b"")


def test_a_listener_goes_on_at_another_process(servers: list[ApiServer], store: Store) -> None:
    writer = Writer(store, "lobby")
    position, faces = "", dict[str, int]()
    for turn in range(4):
        with Listening(servers[turn % 2].url, **({"last_event_id": position} if position else {})) as ear:
            assert ear.wait(1, "hello")[0].data["resumed"] is bool(position)
            for offset in range(turn * 10, turn * 10 + 5):
                write(writer, offset)
            # The newest is not final; all before it are.
            last = f"2026-05-01T12:00:{turn * 10 + 4:02}Z"
            while not any(point.start == last for point in ear.of("point")):
                ear.wait(len(ear.of("point")) + 1)
            told = ear.of("point")
            assert [point.start for point in told] == sorted(point.start for point in told)
            finals = [point.start for point in told if point.data["point"]["final"]]
            assert len(finals) == len(set(finals))
            faces |= {point.start: point.data["point"]["faces"] for point in told}
            position = [point.id for point in told if point.id][-1]
        for offset in range(turn * 10 + 5, turn * 10 + 10):
            write(writer, offset)
    assert faces == {f"2026-05-01T12:00:{offset:02}Z": 1 + offset % 9 for offset in range(35)}
