"""Three Kafka brokers as processes, each of them a controller too (KRaft): replication 3, two copies for an acknowledgement."""

import json
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.servers import HOST, KafkaServer, ServerError, free_port, kafka_libs, wait_until

SIZE = 3
_HEAP = ("-Xms96m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_TOOL_HEAP = ("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_TOOL_S = 90.0
_SETTLED_S = 120.0


def run_tool(main_class: str, *arguments: str, check: bool = True) -> str:
    """Run one of Kafka's command-line tools from its jars; return what it says."""
    libs = kafka_libs()
    if libs is None or not any(libs.glob("kafka-tools-[0-9]*.jar")):
        raise ServerError("no jar of Kafka's tools: run deploy/local/kafka-setup.sh")
    command = ("java", *_TOOL_HEAP, "-cp", f"{libs}/*", main_class, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=False)
    if check and done.returncode:
        raise ServerError(f"{main_class} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


class KafkaNode(KafkaServer):
    """One broker and controller of a group."""

    def __init__(self, number: int, controllers: Mapping[int, int], cluster_id: str, extra: Mapping[str, object]) -> None:
        super().__init__()
        self.number = number
        self._controllers = controllers
        self._cluster_id = cluster_id
        self._extra = dict(extra)

    @property
    def running(self) -> bool:
        return self._process is not None

    def _java(self) -> tuple[str, ...]:
        return ("java", *_HEAP, "-cp", f"{self._libs}/*")

    def _format(self) -> None:
        self._config.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        command = (*self._java(), "kafka.tools.StorageTool", "format", "--config", str(self._config))
        done = subprocess.run((*command, "--cluster-id", self._cluster_id), capture_output=True, text=True, check=False)
        if done.returncode:
            self._config.unlink()
            raise ServerError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    def _properties(self) -> dict[str, object]:
        controller = f"{HOST}:{self._controllers[self.number]}"
        own = super()._properties() | {
            "node.id": self.number,
            "controller.quorum.voters": ",".join(f"{number}@{HOST}:{port}" for number, port in self._controllers.items()),
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{controller}",
            "offsets.topic.replication.factor": SIZE,
            "default.replication.factor": SIZE,
            "min.insync.replicas": 2,
            "replica.lag.time.max.ms": 5000,
            "controller.quorum.election.timeout.ms": 1500,
            "controller.quorum.fetch.timeout.ms": 3000,
            # Not by themselves, and at a moment that a test cannot know.
            "auto.leader.rebalance.enable": "false",
            "controlled.shutdown.enable": "true",
        }
        return own | self._extra

    def prepare(self) -> None:
        """Format the storage."""
        if not self._config.exists():
            self._format()


class KafkaGroup:
    """The brokers together. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._admin: Any = None
        self.nodes: list[KafkaNode] = []

    def __enter__(self) -> Self:
        controllers = {number: free_port() for number in range(1, SIZE + 1)}
        cluster_id = str(uuid.uuid4())
        with ExitStack() as stack:
            for number in controllers:
                node = KafkaNode(number, controllers, cluster_id, {})
                stack.callback(_end, node)
                self.nodes.append(node)
            with ThreadPoolExecutor(SIZE) as pool:
                list(pool.map(lambda node: node.prepare(), self.nodes))
                list(pool.map(lambda node: node.start(), self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def servers(self) -> str:
        return ",".join(node.servers for node in self.nodes)

    @property
    def url(self) -> str:
        return f"kafka://{self.servers}"

    @property
    def admin(self) -> Any:
        """The administrative client: one, as what it was asked for dies with it."""
        self._admin = self._admin or AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        return self._admin

    def node(self, number: int) -> KafkaNode:
        return next(node for node in self.nodes if node.number == number)

    def coordinator(self, group: str) -> KafkaNode:
        """Return the broker that coordinates a consumer group."""
        found = self.admin.describe_consumer_groups([group], request_timeout=20)[group].result()
        return self.node(found.coordinator.id)

    def members(self, group: str) -> int:
        found = self.admin.describe_consumer_groups([group], request_timeout=20)[group].result()
        return len(found.members)

    def controller(self) -> KafkaNode:
        """Return the node that is the active controller."""
        said = run_tool(
            "org.apache.kafka.tools.MetadataQuorumCommand", "--bootstrap-server", self.servers, "describe", "--status"
        )
        (number,) = [int(line.split()[1]) for line in said.splitlines() if line.startswith("LeaderId:")]
        return self.node(number)

    def wait_until_in_step(self) -> None:
        """Wait until every partition has all of its copies, up to date."""
        wait_until(self._in_step, _SETTLED_S, "all replicas in step")

    def _in_step(self) -> bool:
        try:
            metadata = self.admin.list_topics(timeout=5)
        except KafkaException:
            return False
        found = [part for topic in metadata.topics.values() for part in topic.partitions.values()]
        return len(metadata.brokers) == SIZE and all(part.leader > 0 and len(part.isrs) == len(part.replicas) for part in found)

    def reassign(self, topics: list[str], layout: Mapping[int, list[int]], folder: Path) -> None:
        """Give partitions these replicas (by partition number) and wait until the copies are made and lead as listed."""
        wanted = [
            {"topic": topic, "partition": partition, "replicas": replicas}
            for topic in topics
            for partition, replicas in layout.items()
        ]
        plan = folder / "reassign.json"
        plan.write_text(json.dumps({"version": 1, "partitions": wanted}))
        tool = ("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--bootstrap-server", self.servers)
        run_tool(*tool, "--reassignment-json-file", str(plan), "--execute")
        wait_until(lambda: self._has(topics, layout), _SETTLED_S, "the partitions to be where they were sent")
        # With Kafka's tool: confluent-kafka 2.16.1 raises SystemError at elect_leaders.
        elect = ("--election-type", "preferred", "--all-topic-partitions")
        run_tool("org.apache.kafka.tools.LeaderElectionCommand", "--bootstrap-server", self.servers, *elect)

    def _has(self, topics: list[str], layout: Mapping[int, list[int]]) -> bool:
        metadata = self.admin.list_topics(timeout=10)
        return all(
            sorted(metadata.topics[topic].partitions[number].replicas) == sorted(replicas)
            and sorted(metadata.topics[topic].partitions[number].isrs) == sorted(replicas)
            for topic in topics
            for number, replicas in layout.items()
        )


def _end(node: KafkaNode) -> None:
    # All at once, so none can hand over what it leads: an orderly end would wait for a controller that has gone.
    node.kill()
    node.remove()
