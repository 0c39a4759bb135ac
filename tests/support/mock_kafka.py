"""librdkafka's imitation of a Kafka cluster, with its error queue: it answers any kind of request with any error, once or often.

It runs in a process of its own, which is killed at the end: librdkafka may wait indefinitely when it destroys such a cluster.
Commands go to it as lines of JSON, and each is answered with a line, so a fault is in place when its call returns.
"""

import ctypes
import ctypes.util
import json
import subprocess
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

import confluent_kafka

from tests.support.servers import REPO, die_with_parent


class Api(IntEnum):
    """Kinds of requests, by their number in Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22


class MockKafka:
    """A cluster of imitated brokers. A context manager."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers

    def __enter__(self) -> Self:
        command = [*die_with_parent(), sys.executable, "-m", __name__, str(self._brokers)]
        self._process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.servers = self._process.stdout.readline().strip()
        assert self.servers, "the imitated cluster did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def url(self) -> str:
        """Bus URL."""
        return f"kafka://{self.servers}"

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic, replicated to all brokers."""
        self._set_state("topic", name, partitions, self._brokers)

    def push_errors(self, api: Api, errors: Sequence[int]) -> None:
        """Answer the next requests of a kind with these error codes, one each."""
        self._set_state("errors", int(api), list(errors))

    def clear_errors(self, api: Api) -> None:
        """Forget what was pushed and not used."""
        self._set_state("clear", int(api))

    def move_coordinator(self, group: str, broker: int) -> None:
        """Make a broker the coordinator of a consumer group."""
        self._set_state("coordinator", group, broker)

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker the leader of a partition."""
        self._set_state("leader", topic, partition, broker)

    def set_up(self, broker: int, *, up: bool) -> None:
        """Let a broker's connections be, or end them and refuse new ones."""
        self._set_state("up", broker, int(up))

    def set_delay_ms(self, broker: int, delay_ms: int) -> None:
        """Let a broker answer this much later."""
        self._set_state("delay", broker, delay_ms)

    def _set_state(self, *command: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer >= 0, f"{command}: {answer}"
        return answer


class _Library:
    """The cluster itself, by ctypes from the very library that the client uses."""

    def __init__(self, brokers: int) -> None:
        library = _load()
        conf = library.rd_kafka_conf_new()
        message = ctypes.create_string_buffer(512)
        self._client = library.rd_kafka_new(0, conf, message, len(message))
        assert self._client, message.value
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, brokers)
        assert self._cluster
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 100)
        self._library = library

    @property
    def servers(self) -> str:
        return str(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode())

    def handle(self, name: str, *arguments: Any) -> int:
        answer = getattr(self, f"_{name}")(*arguments)
        return 0 if answer is None else int(answer)

    def _topic(self, topic: str, partitions: int, replicas: int) -> int:
        return int(self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, replicas))

    def _errors(self, api: int, errors: Sequence[int]) -> None:
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api, len(errors), codes)

    def _clear(self, api: int) -> None:
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, api)

    def _coordinator(self, group: str, broker: int) -> int:
        return int(self._library.rd_kafka_mock_coordinator_set(self._cluster, b"group", group.encode(), broker))

    def _leader(self, topic: str, partition: int, broker: int) -> int:
        return int(self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def _up(self, broker: int, up: int) -> int:
        call = self._library.rd_kafka_mock_broker_set_up if up else self._library.rd_kafka_mock_broker_set_down
        return int(call(self._cluster, broker))

    def _delay(self, broker: int, delay_ms: int) -> int:
        return int(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, delay_ms))


def _load() -> ctypes.CDLL:
    """Return the client's own librdkafka, with the types of what is called here."""
    package = Path(confluent_kafka.__file__).parent
    bundled = sorted((package.parent / "confluent_kafka.libs").glob("librdkafka*.so*"))
    library = ctypes.CDLL(str(bundled[0]) if bundled else ctypes.util.find_library("rdkafka") or "librdkafka.so.1")
    pointer = ctypes.c_void_p
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    errors = [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)]
    library.rd_kafka_mock_push_request_errors_array.argtypes = errors
    library.rd_kafka_mock_push_request_errors_array.restype = None
    library.rd_kafka_mock_clear_request_errors.argtypes = [pointer, ctypes.c_int16]
    library.rd_kafka_mock_clear_request_errors.restype = None
    library.rd_kafka_mock_coordinator_set.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int32]
    library.rd_kafka_mock_partition_set_leader.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.restype = None
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, ctypes.c_int]
    return library


def _serve(brokers: int) -> None:
    library = _Library(brokers)
    sys.stdout.write(library.servers + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(library.handle(name, *arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
