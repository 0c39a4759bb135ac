"""Kafka and Redis in containers, for machines that have a container engine and not the servers themselves."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_KAFKA_IMAGE = "confluentinc/cp-kafka:7.9.0"
_REDIS_IMAGE = "redis:7"
_ENGINE_S = 5.0


def engine_answers() -> bool:
    """Say whether a container engine answers within a few seconds."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return subprocess.run((docker, "info"), capture_output=True, timeout=_ENGINE_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def kafka_container() -> Iterator[str]:
    """Run Kafka; yields the bus URL."""
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(_KAFKA_IMAGE).with_kraft().with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false") as container:
        yield f"kafka://{container.get_bootstrap_server()}"


@contextmanager
def redis_container() -> Iterator[str]:
    """Run Redis; yields the store URL."""
    from testcontainers.community.redis import RedisContainer

    with RedisContainer(_REDIS_IMAGE).with_command("redis-server --appendonly yes") as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
