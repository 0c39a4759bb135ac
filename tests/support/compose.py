"""docker-compose.yml as a project of its own: brought up, looked into, its containers killed, and taken down again."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moodline import Client, MoodlineError
from tests.support.containers import has_image, image_of
from tests.support.servers import REPO, free_port, wait_until

WORKERS = ("ingest", "detector", "classifier", "aggregator")
_UP_S = 1200.0
_DOWN_S = 60.0
_COMMAND_S = 120.0

# Runs in a container of Moodline's, so that nothing but the API need be reachable from here.
_DUMP = """
import sys
from moodline.services.runtime.bootstrap import retention
from moodline.shared.settings import load_settings
from moodline.shared.store import open_store
from moodline.shared.store.base import dump
from moodline.shared.timeline import TIERS_S
settings = load_settings()
store = open_store(settings.store_url(), retention(settings))
sys.stdout.buffer.write(dump(store, sys.argv[1], TIERS_S))
"""


@dataclass(frozen=True)
class Container:
    """A container as the engine describes it."""

    described: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.described["Id"])

    @property
    def service(self) -> str:
        return str(self.described["Config"]["Labels"]["com.docker.compose.service"])

    @property
    def host(self) -> dict[str, Any]:
        """What it may use and do."""
        config: dict[str, Any] = self.described["HostConfig"]
        return config

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.described["State"]
        return state

    @property
    def works(self) -> bool:
        """Whether it is up, and healthy where it can tell."""
        health = self.state.get("Health", {}).get("Status", "healthy")
        return bool(self.state["Running"]) and health == "healthy"


@dataclass
class Compose:
    """One project. A context manager: entering builds and starts everything, leaving removes it with its volumes."""

    project: str
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.ports = {name: free_port() for name in ("API", "PROMETHEUS", "GRAFANA")}
        try:
            self.up()
        except BaseException as error:
            self._take_down()
            raise error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._take_down()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['API']}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['PROMETHEUS']}"

    def client(self) -> Client:
        return Client(self.api_url, "")

    def up(self, *options: str) -> None:
        """Build and start what is not there yet, and wait until every container works."""
        scales = () if has_image(image_of("GRAFANA")) else ("--scale", "grafana=0")
        self.run("up", "--build", "--detach", "--quiet-pull", "--pull", "never", *scales, *options, timeout_s=_UP_S)
        self.wait_until_all_work()

    def wait_until_all_work(self, timeout_s: float = 120.0) -> None:
        """Wait until every container that is to stay up works."""
        # Each question starts two programs, which on a busy machine is much of what it is busy with.
        wait_until(lambda: all(item.works for item in self.containers()), timeout_s, "health of all containers", pause_s=1.0)

    def run(self, *arguments: str, timeout_s: float = _COMMAND_S) -> bytes:
        """Run a Compose command and return its standard output; fail with its errors."""
        command = ("docker", "compose", "--project-name", self.project, "--profile", "demo", *arguments)
        done = subprocess.run(command, cwd=REPO, env=self._environment(), capture_output=True, timeout=timeout_s, check=False)
        if done.returncode:
            text = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"docker compose {arguments[0]} ended with {done.returncode}: {text[-4000:]}")
        return done.stdout

    def containers(self, service: str | None = None, *, ended: bool = False) -> list[Container]:
        """Return the containers of a service, or of all; those whose work ends only if asked for."""
        ids = self.run("ps", "--all", "--quiet", *([service] if service else [])).decode().split()
        if not ids:
            return []
        found = [Container(item) for item in json.loads(self._docker("inspect", *ids))]
        return [item for item in found if ended or item.host["RestartPolicy"]["Name"] == "unless-stopped"]

    def processes(self, container: Container) -> list[tuple[int, str]]:
        """Return the user id and name of every process in a container, as the host sees them."""
        lines = self._docker("top", container.id, "-eo", "uid,pid,comm").decode().splitlines()[1:]
        return [(int(line.split()[0]), line.split()[2]) for line in lines]

    def execute(self, container: Container, *command: str) -> tuple[int, str]:
        """Run a command in a container; return its status and all of its output."""
        done = subprocess.run(
            ("docker", "exec", container.id, *command), capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def dump(self, stream_id: str) -> bytes:
        """Return the canonical bytes of a timeline."""
        return self.run("exec", "--no-TTY", "aggregator", "python", "-c", _DUMP, stream_id)

    def logs(self) -> str:
        return self.run("logs", "--no-color", "--tail", "30").decode(errors="replace")

    def kill(self, container: Container) -> None:
        """End all processes of a container at once, and wait until one works in its place."""
        pid = container.state["Pid"]
        cgroup = Path(f"/proc/{pid}/cgroup")
        if cgroup.exists() and container.id in cgroup.read_text() and os.geteuid() == 0:
            os.kill(pid, signal.SIGKILL)  # a crash: the engine starts it again, as its restart policy says
        else:
            self._docker("kill", container.id)
            self._docker("start", container.id)
        wait_until(lambda: self._is_another(container), 60.0, f"restart of {container.service}", pause_s=0.3)

    def frames(self, stream_id: str) -> tuple[int, bool]:
        """Return how many frames of a file are in its timeline, and whether that is all; 0 while the API does not answer."""
        try:
            with self.client() as client:
                stream = client.get_stream(stream_id)
        except MoodlineError:
            return 0, False
        assert stream.status.state != "failed", f"{stream_id} failed: {stream.status.reason} {stream.status.detail}"
        return stream.progress.frames, stream.progress.complete

    def wait_until_complete(self, stream_id: str, timeout_s: float = 90.0) -> None:
        wait_until(lambda: self.frames(stream_id)[1], timeout_s, f"the whole of {stream_id} in its timeline", pause_s=0.2)

    def _is_another(self, before: Container) -> bool:
        now = Container(json.loads(self._docker("inspect", before.id))[0])
        return bool(now.state["Running"]) and now.state["StartedAt"] != before.state["StartedAt"]

    def _docker(self, *arguments: str) -> bytes:
        return subprocess.run(("docker", *arguments), capture_output=True, timeout=_COMMAND_S, check=True).stdout

    def _take_down(self) -> None:
        (self.folder / "compose.log").write_bytes(self.run("logs", "--no-color"))
        self.run("down", "--volumes", "--timeout", "5", timeout_s=_DOWN_S)

    def _environment(self) -> dict[str, str]:
        published = {f"{name}_PUBLISHED_PORT": str(port) for name, port in self.ports.items()}
        return os.environ | {"MOODLINE_IMAGE": "moodline-test", "PUBLISH_ADDRESS": "127.0.0.1", "MEDIA": "media"} | published
