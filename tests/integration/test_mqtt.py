"""MQTT against a real mosquitto: topics, what is retained, Home Assistant's discovery, a broker that goes and comes back."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moodline.services.mqtt.address import parse_broker
from moodline.services.mqtt.bridge import MqttBridge
from moodline.shared.clock import SystemClock
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import SettingsError
from moodline.shared.metrics import Metrics
from moodline.shared.settings import MqttSettings, Settings
from moodline.shared.store import Store
from tests.support.api import ApiWorld, nobody, smiling
from tests.support.servers import wait_until

mqtt = pytest.importorskip("paho.mqtt.client")
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
WAIT_S = 30.0


class Mosquitto:
    """A broker in a folder; it may be stopped and started again on the same port."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        access = "allow_anonymous true\n"
        if password:
            subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "users", "moodline", password], check=True)
            (folder / "users").chmod(0o644)
            access = f"allow_anonymous false\npassword_file {folder / 'users'}\n"
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\npersistence false\nuser root\n{access}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([MOSQUITTO, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, WAIT_S, "mosquitto")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """Hears everything."""

    def __init__(self, port: int, **login: str) -> None:
        self.heard: dict[str, str] = {}
        self.all: list[tuple[str, str]] = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if login:
            self.client.username_pw_set(login["username"], login["password"])
        subscribed = threading.Event()
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self._note
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(WAIT_S)

    def _note(self, _client: object, _data: object, message: Any) -> None:
        payload = message.payload.decode()
        self.all.append((message.topic, payload))
        self.heard[message.topic] = payload

    def wait(self, topic: str, payload: str | None = None) -> str:
        wait_until(lambda: topic in self.heard and payload in (None, self.heard[topic]), WAIT_S, f"{topic} {payload or ''}")
        return self.heard[topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    if not Path(MOSQUITTO).exists():
        reason = "no mosquitto: apt-get install mosquitto"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI must have a broker: {reason}")
        pytest.skip(reason)
    server = Mosquitto(tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def bridge(store: Store, port: int, metrics: Metrics | None = None, login: str = "", **settings: Any) -> Iterator[MqttBridge]:
    configured = Settings(mqtt=MqttSettings(url=f"mqtt://{login}127.0.0.1:{port}", **settings))
    with MqttBridge(store, configured, metrics or Metrics(), SystemClock()) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    (tmp_path / "world").mkdir()
    with ApiWorld(tmp_path / "world") as world:
        yield world


@contextmanager
def listening(port: int, **login: str) -> Iterator[Listener]:
    listener = Listener(port, **login)
    try:
        yield listener
    finally:
        listener.close()


def test_topics_of_a_stream(world: ApiWorld, broker: Mosquitto) -> None:
    world.add("Front_Door", labels={"site": "berlin"})
    world.play("Front_Door", [smiling(), smiling()])
    with bridge(world.store, broker.port), listening(broker.port) as listener:
        assert listener.wait("moodline/available") == "online"
        assert listener.wait("moodline/Front_Door/state") == "ended"
        assert json.loads(listener.wait("moodline/Front_Door/status"))["labels"] == {"site": "berlin"}
        assert listener.wait("moodline/Front_Door/emotion") == "happy"
        assert listener.wait("moodline/Front_Door/faces") == "1"
        point = json.loads(listener.wait("moodline/Front_Door/point"))
        assert (point["dominant"], point["final"], list(point["shares"])) == ("happy", True, list(EMOTIONS))
        world.add("yard")
        world.play("yard", [nobody()])
        listener.wait("moodline/yard/emotion", "none")
    with listening(broker.port) as late:
        assert late.wait("moodline/available") == "offline", "and that is retained"
        assert late.wait("moodline/Front_Door/emotion") == "happy"


def test_home_assistant_finds_every_entity_and_forgets_what_is_removed(world: ApiWorld, broker: Mosquitto) -> None:
    world.add("Front_Door")
    world.play("Front_Door", [smiling()])
    with bridge(world.store, broker.port), listening(broker.port) as listener:
        listener.wait("moodline/Front_Door/point")
        config = json.loads(listener.wait("homeassistant/sensor/moodline_Front_Door/emotion/config"))
        assert config["options"] == [*EMOTIONS, "none"]
        wait_until(lambda: sum(topic.endswith("/config") for topic in listener.heard) == 12, WAIT_S, "entities")
        configs = [json.loads(payload) for topic, payload in listener.heard.items() if topic.endswith("/config")]
        assert len({each["unique_id"] for each in configs}) == 12
        for each in configs:
            assert each["state_topic"] in listener.heard or each["state_topic"].endswith("/alert")
            assert each["availability_topic"] == "moodline/available"
            assert each["device"]["identifiers"] == ["moodline_Front_Door"]
        told = len(listener.all)
        listener.client.publish("homeassistant/status", "online")
        wait_until(lambda: sum(t.endswith("emotion/config") for t, _ in listener.all[told:]) == 1, WAIT_S, "discovery again")
        world.http.delete("/api/v1/streams/Front_Door")
        listener.wait("homeassistant/sensor/moodline_Front_Door/emotion/config", "")
        listener.wait("moodline/Front_Door/point", "")
    with listening(broker.port) as late:
        late.wait("moodline/available")
        assert [topic for topic in late.heard if "Front_Door" in topic] == []


def test_two_streams_never_share_an_entity(world: ApiWorld, broker: Mosquitto) -> None:
    for name in ("a.b", "a_b", "A_b"):
        world.add(name)
    with bridge(world.store, broker.port), listening(broker.port) as listener:
        wait_until(lambda: sum(topic.endswith("/emotion/config") for topic in listener.heard) == 3, WAIT_S, "three streams")
        topics = {json.loads(p)["state_topic"] for t, p in listener.heard.items() if t.endswith("/emotion/config")}
        assert topics == {"moodline/a.b/emotion", "moodline/a_b/emotion", "moodline/A_b/emotion"}


def test_alerts_go_to_their_stream_and_to_all(world: ApiWorld, broker: Mosquitto) -> None:
    world.add("hall")
    event = {"id": "e", "rule": "r", "stream": "hall", "kind": "firing", "reason": "condition"}
    with bridge(world.store, broker.port), listening(broker.port) as listener:
        listener.wait("moodline/hall/state")
        world.store.append_record("alerts", json.dumps(event).encode(), 10)
        assert json.loads(listener.wait("moodline/hall/alert")) == event
        assert json.loads(listener.wait("moodline/events")) == event


def test_a_broker_that_goes_and_comes_back_gets_everything_again(world: ApiWorld, broker: Mosquitto) -> None:
    metrics = Metrics()
    world.add("hall")
    world.play("hall", [smiling()])
    with bridge(world.store, broker.port, metrics):
        with listening(broker.port) as listener:
            listener.wait("moodline/hall/emotion")
        broker.stop()
        connected = lambda: metrics.registry.get_sample_value("moodline_mqtt_connected")  # noqa: E731
        wait_until(lambda: connected() == 0, WAIT_S, "the broker to be missed")
        broker.start()
        with listening(broker.port) as listener:
            assert listener.wait("moodline/hall/emotion") == "happy", "though it keeps nothing itself"
            listener.wait("homeassistant/sensor/moodline_hall/emotion/config")
        wait_until(lambda: connected() == 1, WAIT_S, "the broker to be back")


def test_without_discovery_and_below_another_prefix(world: ApiWorld, broker: Mosquitto) -> None:
    world.add("hall")
    with bridge(world.store, broker.port, topic_prefix="site/mood", discovery_prefix=""), listening(broker.port) as listener:
        listener.wait("site/mood/hall/state")
        assert all(topic.startswith("site/mood/") for topic in listener.heard)


def test_one_process_of_several_publishes(world: ApiWorld, broker: Mosquitto) -> None:
    world.add("hall")
    with bridge(world.store, broker.port) as first, listening(broker.port) as listener:
        listener.wait("moodline/hall/state")
        second = Metrics()
        with bridge(world.store, broker.port, second):
            told = len(listener.all)
            world.play("hall", [smiling()])
            listener.wait("moodline/hall/emotion", "happy")
            assert sum(topic == "moodline/hall/emotion" for topic, _ in listener.all[told:]) == 1
            assert first.alive() == {"mqtt": True}
            assert second.registry.get_sample_value("moodline_mqtt_connected") == 0


def test_a_broker_with_a_password(tmp_path: Path, world: ApiWorld, broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    closed = Mosquitto(folder, password="s3cr@t")
    closed.start()
    world.add("hall")
    try:
        with (
            bridge(world.store, closed.port, login="moodline:s3cr%40t@"),
            listening(closed.port, username="moodline", password="s3cr@t") as listener,
        ):
            listener.wait("moodline/hall/state")
    finally:
        closed.stop()
    assert "s3cr" not in caplog.text


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://h/path", "mqtt://h:0", "mqtt://h:x", "h:1883"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SettingsError, match="mqtt://user:password@host"):
        parse_broker(url)


def test_an_address_is_shown_without_its_password() -> None:
    found = parse_broker("mqtts://a%40b:p%3Aw@broker.example")
    assert (found.port, found.username, found.password) == (8883, "a@b", "p:w")
    assert found.shown() == "mqtts://broker.example:8883"
