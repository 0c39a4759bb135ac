"""Images by digest: what `deploy/pin_images.py` writes is what Compose starts. Docker is a stand-in."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DIGESTS = {
    "python": "1" * 64,
    "apache/kafka": "2" * 64,
    "redis": "3" * 64,
    "prom/prometheus": "4" * 64,
    "grafana/grafana": "5" * 64,
}
_DOCKER = """#!{python}
import json, sys
asked = sys.argv[1:]
if asked[:2] == ["pull", "--quiet"]:
    name = asked[2]
    if name in {unknown!r}:
        sys.exit(f"manifest for {{name}} not found: manifest unknown")
    print(name)
elif asked[:3] == ["image", "inspect", "--format"] and asked[3] == "{{{{json .RepoDigests}}}}":
    name = asked[4].rpartition(":")[0]
    found = [f"mirror.example/other@sha256:{{'9' * 64}}"]
    found += [f"{{name}}@sha256:{{digest}}" for digest in [{digests!r}.get(name)] if digest]
    print(json.dumps(found))
else:
    sys.exit(f"unknown command: {{asked}}")
"""
Pin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pin(tmp_path: Path) -> Pin:
    """Return what runs the script in a copy of the repository's files, with a stand-in for Docker first in PATH."""
    (tmp_path / "deploy" / "compose").mkdir(parents=True)
    shutil.copy(REPO / "deploy" / "pin_images.py", tmp_path / "deploy")
    shutil.copy(REPO / ".env", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(digests: dict[str, str], unknown: str = "") -> "subprocess.CompletedProcess[str]":
        docker = programs / "docker"
        docker.write_text(_DOCKER.format(python=sys.executable, digests=digests, unknown=unknown))
        docker.chmod(0o755)
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        command = [sys.executable, tmp_path / "deploy" / "pin_images.py"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def written(tmp_path: Path) -> dict[str, str]:
    lines = (tmp_path / "deploy" / "compose" / "images.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_every_image_that_compose_takes_from_a_registry_gets_a_digest(pin: Pin, tmp_path: Path) -> None:
    done = pin(DIGESTS)
    assert done.returncode == 0, done.stderr
    pinned = written(tmp_path)
    used = set(re.findall(r"\$\{([A-Z]+_IMAGE)\}", (REPO / "docker-compose.yml").read_text())) - {"MOODLINE_IMAGE"}
    assert set(pinned) == used
    assert pinned["KAFKA_IMAGE"] == f"apache/kafka:4.1.1@sha256:{'2' * 64}"
    assert all(re.fullmatch(r"[a-z/]+:[A-Za-z0-9.-]+@sha256:[0-9a-f]{64}", image) for image in pinned.values())
    assert done.stdout.count("changed ") == len(used)
    moved = pin(DIGESTS | {"redis": "6" * 64})
    assert (moved.stdout.count("changed "), moved.stdout.count("same ")) == (1, len(used) - 1)
    assert written(tmp_path)["REDIS_IMAGE"].endswith("6" * 64)


@pytest.mark.parametrize(
    ("digests", "unknown", "why"),
    [({}, "", "knows 0 digests of python"), (DIGESTS, "redis:7.2-bookworm", "manifest unknown")],
    ids=["built here", "not in the registry"],
)
def test_what_has_no_digest_is_told_and_nothing_is_written(
    pin: Pin, tmp_path: Path, digests: dict[str, str], unknown: str, why: str
) -> None:
    done = pin(digests, unknown)
    assert done.returncode == 1
    assert why in done.stderr
    assert not (tmp_path / "deploy" / "compose" / "images.env").exists()


def test_dockers_own_command_line_reads_the_options_that_are_used() -> None:
    """Without its daemon it gets no further than to look for one, which is after it has read them."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not installed")
    environment = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    for arguments in (["pull", "--quiet", "redis:7"], ["image", "inspect", "--format", "{{json .RepoDigests}}", "redis:7"]):
        done = subprocess.run([docker, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert "connect to the Docker daemon" in done.stderr or "docker.sock" in done.stderr, done.stderr


def test_a_pinned_name_is_one_that_compose_puts_in_as_it_is() -> None:
    lines = [line for line in (REPO / "docker-compose.yml").read_text().splitlines() if "_IMAGE}" in line]
    outside = [line for line in lines if "MOODLINE_IMAGE" not in line]
    assert len(outside) >= 5
    # Nothing may follow, as a tag would.
    assert all(re.search(r"\$\{[A-Z]+_IMAGE\}$", line) for line in outside)
    assert json.dumps(outside).count("${") == len(outside)
