"""Kafka as docker-compose.yml sets it up: nobody reads or writes without the password that was made at the first start."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from moodline.shared.bus import open_bus
from moodline.shared.errors import SettingsError
from moodline.shared.messages import ALL_TOPICS
from moodline.shared.settings import BusSettings, Settings, load_settings
from tests.support.servers import HOST, KafkaServer, free_port

REPO: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((REPO / "docker-compose.yml").read_text())
KAFKA: Final[dict[str, Any]] = COMPOSE["services"]["kafka"]


def settings_of(url: str, file: Path | None) -> Settings:
    return load_settings(bus=BusSettings(url=url, password_file=file))


class ComposeKafka(KafkaServer):
    """A broker with the properties of the service `kafka`; addresses, folders and times are those of tests."""

    def __init__(self, secrets: Path) -> None:
        super().__init__()
        self._secrets = secrets
        self.local_port = free_port()

    def _properties(self) -> dict[str, object]:
        given = {name.removeprefix("KAFKA_").lower().replace("_", "."): str(value) for name, value in self._given().items()}
        given.pop("heap.opts")
        for name in ("listeners", "advertised.listeners"):
            moved = given[name].replace("CLIENTS://kafka:9092", f"CLIENTS://{HOST}:{self.port}")
            moved = moved.replace("CLIENTS://:9092", f"CLIENTS://{HOST}:{self.port}")
            moved = moved.replace("localhost:9094", f"{HOST}:{self.local_port}")
            given[name] = moved.replace("localhost:9093", f"{HOST}:{self._controller_port}")
        assert HOST in given["listeners"]
        own = super()._properties()
        kept = ("log.dirs", "controller.quorum.voters", "log.cleaner.dedupe.buffer.size")
        return {**given, **{name: own[name] for name in kept}}

    def _given(self) -> dict[str, str]:
        """Return the environment of the broker's process: what the file says, and what the container's command adds."""
        command = KAFKA["command"][0].replace("$$", "$").replace("/secrets", str(self._secrets))
        shown = command.replace("exec /etc/kafka/docker/run", "env")
        added = subprocess.run([*KAFKA["entrypoint"], shown], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
        found = re.findall(r"^(KAFKA_\w+)=(.*)$", added.stdout.decode(), re.MULTILINE)
        assert found, added.stdout
        return {**KAFKA["environment"], **dict(found)}

    def _answers(self) -> bool:
        return self.answers_at(f"{HOST}:{self.local_port}")


def made_secrets(folder: Path) -> Path:
    """Do what the service `secrets` does, twice: a second start changes nothing."""
    script = COMPOSE["services"]["secrets"]["command"][0].replace("$$", "$").replace("/secrets", str(folder))
    subprocess.run(["sh", "-c", script], check=True)
    first = {path.name: path.read_text() for path in folder.iterdir()}
    subprocess.run(["sh", "-c", script], check=True)
    assert first == {path.name: path.read_text() for path in folder.iterdir()}
    assert sorted(first) == ["kafka", "redis"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", word) for word in first.values())
    return folder


@pytest.mark.kafka
def test_without_the_password_nobody_gets_at_compose_kafka(tmp_path: Path) -> None:
    secrets = made_secrets(tmp_path)
    url = COMPOSE["x-moodline"]["environment"]["MOODLINE_BUS_URL"]
    with ComposeKafka(secrets) as kafka:
        at = url.replace("kafka:9092", kafka.servers)
        bus = open_bus(settings_of(at, secrets / "kafka").bus_url(), partitions=2)
        bus.ensure_topics(ALL_TOPICS)
        assert bus.partitions(ALL_TOPICS[0]) == 2
        bus.close()
        login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "moodline"}
        for properties in ({}, {**login, "sasl.password": "0" * 64}):
            stranger = AdminClient({"bootstrap.servers": kafka.servers, "log_level": 0, **properties})
            with pytest.raises(KafkaException):
                stranger.list_topics(timeout=3)


def test_the_local_listener_of_compose_kafka_is_on_loopback_alone() -> None:
    listeners = dict(re.findall(r"(\w+)://([^,]*)", KAFKA["environment"]["KAFKA_LISTENERS"]))
    protocols = dict(each.split(":") for each in KAFKA["environment"]["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    reached = {name for name, address in listeners.items() if not address.startswith("localhost:")}
    assert {protocols[name] for name in reached} == {"SASL_PLAINTEXT"}


def test_the_password_of_a_file_gets_into_a_url_that_has_none(tmp_path: Path) -> None:
    file = tmp_path / "word"
    file.write_text("a&b=c d\n")
    user = "kafka://kafka:9092?sasl.username=moodline"
    assert settings_of(user, file).bus_url() == f"{user}&sasl.password=a%26b%3Dc%20d"
    for url in ("kafka://kafka:9092", "memory://", f"{user}&sasl.password=own"):
        assert settings_of(url, file).bus_url() == url
    with pytest.raises(SettingsError, match="MOODLINE_BUS_PASSWORD_FILE"):
        settings_of(user, tmp_path / "none").bus_url()
    assert "a&b" not in repr(settings_of(user, file))
