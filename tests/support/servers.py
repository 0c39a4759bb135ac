"""Kafka and Redis as local processes, on free ports and in folders of their own, that tests may kill and start again."""

import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

REPO = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_START_S = 60.0
_STOP_S = 20.0
_PORTS = range(10_000, 32_000)
"""Below what Linux takes for outgoing connections (net.ipv4.ip_local_port_range)."""

# The kernel ends a server when the thread that started it ends, so all are started by one that lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")

# A small heap, the serial collector and the first compiler alone: a broker for tests that starts in seconds beside others.
_JAVA_FLAGS = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class ServerError(Exception):
    """A server did not start; the message ends with the last lines of its log."""


def kafka_libs() -> Path | None:
    """Return the folder with Kafka's jars: `MOODLINE_TEST_KAFKA_LIBS`, else `.local/kafka/libs`; None when there is none."""
    folder = Path(os.environ.get("MOODLINE_TEST_KAFKA_LIBS") or REPO / ".local" / "kafka" / "libs")
    return folder if any(folder.glob("kafka_*.jar")) else None


def free_port() -> int:
    """Return a TCP port that is free now, and that the kernel gives to no outgoing connection before it is used.

    It is drawn at random, so that test runs side by side do not get the same one between asking and listening.
    """
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class ServerProcess:
    """One server process with a folder; started again, it finds its port and its data as they were."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"moodline-{name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> Self:
        """Start and block until the server answers. Raises `ServerError`."""
        assert self._process is None, "already running"
        self._spawn()
        deadline = time.monotonic() + _START_S
        while not self._answers():
            status = self._process.poll() if self._process else None
            if status is not None:
                raise self._failure(f"ended with status {status}")
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"did not answer within {_START_S:.0f} s")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ask the server to end, and wait; kill it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a frozen process would not notice
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the process at once, as `kill -9` does. The data stays as it is on the disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> Self:
        """Kill, then start again on the same port with the same data."""
        self.kill()
        return self.start()

    def start_soon(self, delay_s: float) -> threading.Timer:
        """Start after a while, in another thread; join the returned timer to wait for it."""
        timer = threading.Timer(delay_s, self.start)
        timer.start()
        return timer

    def pause(self) -> None:
        """Freeze the process (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    def remove(self) -> None:
        """Delete the data, unless the folder was given."""
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = _spawner.submit(
                subprocess.Popen,
                (*die_with_parent(), *self._command()),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()

    def _failure(self, what: str) -> ServerError:
        tail = self.log.read_text(errors="replace").splitlines()[-15:]
        self._process = None
        return ServerError("\n".join([f"{type(self).__name__} {what}; its log ends:", *tail]))

    def _command(self) -> tuple[str, ...]:
        return ()

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _answers(self) -> bool:
        return False


def die_with_parent() -> tuple[str, ...]:
    """A test run that is itself killed must not leave servers behind."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def _kafka_id() -> str:
    """Return a random id as Kafka writes it: 16 bytes in base 64 for URLs, and no sign at the front."""
    return base64.urlsafe_b64encode(b"m" + secrets.token_bytes(15)).decode().rstrip("=")


class KafkaServer(ServerProcess):
    """One Kafka broker that is its own controller (KRaft), from jars on the disk.

    Topics are not created on demand; groups form without the initial delay.
    """

    def __init__(self, libs: Path | None = None, folder: Path | None = None) -> None:
        found = libs or kafka_libs()
        if found is None:
            raise ServerError("no Kafka jars: run deploy/local/kafka-setup.sh, or set MOODLINE_TEST_KAFKA_LIBS")
        super().__init__("kafka", folder)
        self._libs = found
        self.port = free_port()
        self._controller_port = free_port()
        self._config = self.folder / "server.properties"

    @property
    def servers(self) -> str:
        """Bootstrap servers, `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Bus URL."""
        return f"kafka://{self.servers}"

    def _command(self) -> tuple[str, ...]:
        if not self._config.exists():
            self._format()
        return (*self._java(), "kafka.Kafka", str(self._config))

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {"LC_ALL": "C.UTF-8"}

    def _java(self) -> tuple[str, ...]:
        return ("java", *_JAVA_FLAGS, "-cp", f"{self._libs}/*")

    def _format(self) -> None:
        self._config.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        # What `kafka-storage format` writes for one controller that the configuration names, without a Java process of its own.
        data = self.folder / "data"
        data.mkdir()
        own = {"version": 1, "cluster.id": _kafka_id(), "node.id": 1, "directory.id": _kafka_id()}
        (data / "meta.properties").write_text("".join(f"{key}={value}\n" for key, value in own.items()))

    def _properties(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "num.recovery.threads.per.data.dir": 2,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
            # A killed broker may register again only when its old session is over: 9 s by default.
            "broker.session.timeout.ms": 1500,
            "broker.heartbeat.interval.ms": 300,
        }

    def _answers(self) -> bool:
        return self.answers_at(self.servers)

    @staticmethod
    def answers_at(servers: str) -> bool:
        """Say whether a broker answers at `host:port`."""
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False


class RedisServer(ServerProcess):
    """One Redis server that appends every write to a file and syncs it each second."""

    def __init__(self, folder: Path | None = None) -> None:
        if shutil.which("redis-server") is None:
            raise ServerError("no redis-server on the path: run deploy/local/system-packages.sh")
        super().__init__("redis", folder)
        self.port = free_port()

    @property
    def url(self) -> str:
        """Store URL."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def aof_path(self) -> Path:
        """The file that writes are appended to now."""
        manifest = (self.folder / "appendonlydir" / "appendonly.aof.manifest").read_text()
        names = [line.split()[1] for line in manifest.splitlines() if line.endswith("type i")]
        return self.folder / "appendonlydir" / names[-1]

    def _command(self) -> tuple[str, ...]:
        options = {
            "port": self.port,
            "bind": HOST,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
        }
        return ("redis-server", *(part for key, value in options.items() for part in (f"--{key}", str(value))))

    def _answers(self) -> bool:
        return self.answers_at(HOST, self.port)

    @staticmethod
    def answers_at(host: str, port: int) -> bool:
        """Say whether a Redis answers, and has read its file."""
        client = redis.Redis(host=host, port=port, socket_timeout=1.0)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0, what: str = "condition", pause_s: float = 0.02) -> None:
    """Poll until the condition holds; fail after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(pause_s)
