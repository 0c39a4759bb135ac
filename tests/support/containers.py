"""A container engine, and Kafka and Redis in containers, for machines that have an engine and not the servers themselves."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import REPO, KafkaServer, RedisServer, ServerError, free_port, wait_until

_ENGINE_S = 5.0
_MAKE_ENGINE_S = 900.0
_START_S = 60.0


def engine_answers() -> bool:
    """Say whether a container engine answers within a few seconds."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return subprocess.run((docker, "info"), capture_output=True, timeout=_ENGINE_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def start_engine() -> None:
    """Make sure that an engine with Compose answers.

    A script `containers/make-images` in the folder of the test material, beside the checkout, may start one; root only.

    Raises:
        ServerError: there is none.
    """
    material = Path(os.environ.get("MOODLINE_TEST_MATERIAL", REPO.parent / "shared"))
    script = material / "containers" / "make-images"
    if script.is_file() and os.geteuid() == 0:
        with _one_at_a_time():
            made = subprocess.run(("bash", str(script)), capture_output=True, text=True, timeout=_MAKE_ENGINE_S, check=False)
        if made.returncode:
            raise ServerError(f"{script} failed: {made.stderr[-1000:]}")
    if not engine_answers():
        raise ServerError("no container engine answers")
    if subprocess.run(("docker", "compose", "version"), capture_output=True, check=False).returncode:
        raise ServerError("the container engine has no Compose")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold back other processes that make an engine: workers of one test run ask for it at the same time."""
    with (Path(tempfile.gettempdir()) / "moodline-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def image_of(name: str) -> str:
    """Return the image that docker-compose.yml uses by default for KAFKA, REDIS, …, as `.env` says."""
    lines = (REPO / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))[f"{name}_IMAGE"]


def has_image(image: str) -> bool:
    """Say whether the engine has the image, or gets it now."""
    found = subprocess.run(("docker", "image", "inspect", image), capture_output=True, check=False).returncode == 0
    return found or subprocess.run(("docker", "pull", "--quiet", image), capture_output=True, check=False).returncode == 0


@contextmanager
def kafka_container() -> Iterator[str]:
    """Run Kafka as a single node; yields the bus URL. Fails when it does not start."""
    from testcontainers.core.container import DockerContainer

    _without_reaper()
    port = free_port()
    container = DockerContainer(image_of("KAFKA")).with_bind_ports(9092, port)
    for name, value in _kafka_settings(port).items():
        container.with_env(name, value)
    with container:
        server = f"{container.get_container_host_ip()}:{port}"
        wait_until(lambda: KafkaServer.answers_at(server), _START_S, "Kafka's container")
        yield f"kafka://{server}"


@contextmanager
def redis_container() -> Iterator[str]:
    """Run Redis, with a file of its writes; yields the store URL. Fails when it does not start."""
    from testcontainers.core.container import DockerContainer

    _without_reaper()
    container = DockerContainer(image_of("REDIS")).with_command("redis-server --appendonly yes").with_exposed_ports(6379)
    with container:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(6379))
        wait_until(lambda: RedisServer.answers_at(host, port), _START_S, "Redis's container")
        yield f"redis://{host}:{port}/0"


def _without_reaper() -> None:
    """Containers end with the fixture; the container that testcontainers would end them with needs an image from elsewhere."""
    from testcontainers.core.config import testcontainers_config

    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    testcontainers_config.ryuk_disabled = True


def _kafka_settings(port: int) -> dict[str, str]:
    settings = {
        "NODE_ID": 1,
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENERS": "PLAINTEXT://:9092,CONTROLLER://localhost:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
        "OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
        "OFFSETS_TOPIC_NUM_PARTITIONS": 4,
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
        "TRANSACTION_STATE_LOG_MIN_ISR": 1,
        "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": 1,
        "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": 1,
    }
    return {f"KAFKA_{name}": str(value) for name, value in settings.items()}
