"""Fixtures that hand out real servers.

`kafka_server` and `redis_server` are shared by the whole run and found in this order: the URL in `MOODLINE_TEST_KAFKA_URL` or
`MOODLINE_TEST_REDIS_URL`; a container, where an engine answers and has the image or gets it; a local process. `private_kafka` and
`private_redis` are local processes of one test, which may kill and restart them. `engine` is a container engine with Compose.
Where there is no server a test is skipped, but fails in CI (`CI=true`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

import pytest

from tests.support.containers import engine_answers, has_image, image_of, kafka_container, redis_container, start_engine
from tests.support.servers import KafkaServer, RedisServer, ServerError, ServerProcess

AnyServer = TypeVar("AnyServer", bound=ServerProcess)


class Server(Protocol):
    """What tests that share a server may rely on."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class GivenServer:
    """A server that this test run did not start."""

    url: str


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[Server]:
    with _shared("KAFKA", KafkaServer, kafka_container) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    with _shared("REDIS", RedisServer, redis_container) as server:
        yield server


@pytest.fixture
def private_kafka() -> Iterator[KafkaServer]:
    with local_server(KafkaServer) as server:
        yield server


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    with local_server(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine with Compose answers."""
    try:
        start_engine()
    except ServerError as error:
        unavailable(str(error))


@contextmanager
def _shared(
    name: str,
    local: Callable[[], AbstractContextManager[Server]],
    container: Callable[[], AbstractContextManager[str]],
) -> Iterator[Server]:
    variable = f"MOODLINE_TEST_{name}_URL"
    if url := os.environ.get(variable):
        yield GivenServer(url)
    elif engine_answers() and has_image(image_of(name)):
        with container() as url:
            yield GivenServer(url)
    else:
        try:
            server = local()
        except ServerError as error:
            unavailable(f"{error}; or set {variable}")
        with server as running:
            yield running


@contextmanager
def local_server(local: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """A local server of its own, where there is one: else the test is skipped, or fails in CI."""
    try:
        server = local()
    except ServerError as error:
        unavailable(str(error))
    with server as running:
        yield running


def unavailable(reason: str) -> NoReturn:
    """Skip the test for want of a server, or fail in CI."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI must have every server: {reason}")
    pytest.skip(reason)
