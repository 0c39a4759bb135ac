"""Every lock installs with an old pip on any later day.

A stand-in for the package index holds, of each locked package, a wheel of the locked version with that package's true
dependencies, and a newer release that came out after the lock was made. Whatever in a lock leaves a choice open shows here,
as it would show to a user on the day of that release: pip takes the newer one, and its hash is not in the lock.
"""

import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
LOCKS = sorted(path.relative_to(REPO).as_posix() for path in (*REPO.glob("*.lock"), *REPO.glob("deploy/requirements/*.lock")))
# 22.3 is the oldest one; it does not start on Python 3.12 and later.
PIPS = ("22.3", "23.2.1") if sys.version_info < (3, 12) else ("23.2.1",)

_PIN = re.compile(
    r"(?P<name>[a-z0-9._-]+)(\[(?P<extras>[a-z0-9,._-]+)\])?==(?P<version>[^ ;]+)( ; (?P<marker>.*?))?( \\)?", re.ASCII
)


@dataclass(frozen=True)
class Pin:
    """One line of a lock, as it is there."""

    line: str
    name: str
    version: str
    applies: bool
    extras: frozenset[str]


def pins_of(lock: str) -> list[Pin]:
    pins = []
    for line in lock.splitlines():
        if line[:1].isalnum():
            match = _PIN.fullmatch(line)
            assert match, f"not pinned to one version: {line}"
            applies = match["marker"] is None or Marker(match["marker"]).evaluate()
            extras = frozenset(match["extras"].split(",")) if match["extras"] else frozenset[str]()
            pins.append(Pin(line.removesuffix(" \\"), canonicalize_name(match["name"]), match["version"], applies, extras))
    return pins


def without_extras(lock: str) -> str:
    """Return a lock as it was made in the beginning."""
    return re.sub(r"(?m)^([a-z0-9._-]+)\[[^]]*\]==", r"\1==", lock)


def true_dependencies(pin: Pin) -> list[str]:
    try:
        installed = metadata(pin.name)
    except PackageNotFoundError:
        return []
    assert installed["Version"] == pin.version, "the tests run in an environment that was made from another lock"
    return [f"{key}: {value}" for key in ("Requires-Dist", "Provides-Extra") for value in installed.get_all(key) or ()]


def needed_by(pin: Pin) -> list[Requirement]:
    """Return what a package, with the extras that it is pinned with, needs on this machine."""
    stated = [Requirement(line.partition(": ")[2]) for line in true_dependencies(pin) if line.startswith("Requires-Dist")]
    chosen = [{"extra": extra} for extra in ("", *pin.extras)]
    return [wanted for wanted in stated if wanted.marker is None or any(wanted.marker.evaluate(extra) for extra in chosen)]


def add_wheel(index: Path, name: str, version: str, dependencies: list[str]) -> str:
    """Put a wheel that holds nothing into the index; return its SHA-256."""
    folder = index / "simple" / name
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *dependencies]
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(head) + "\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    links = "".join(f'<a href="{file.name}">{file.name}</a><br>' for file in sorted(folder.glob("*.whl")))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def fill_index(index: Path, lock: str) -> str:
    """Fill the index for a lock; return the lock with the hashes of the index's wheels, and nothing else changed."""
    lines = []
    for pin in pins_of(lock):
        digest = "0" * 64
        if pin.applies:
            digest = add_wheel(index, pin.name, pin.version, true_dependencies(pin))
            add_wheel(index, pin.name, f"{pin.version}.post1", true_dependencies(pin))
        lines.append(f"{pin.line} \\\n    --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


class _Silent(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(index: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(index / "simple"))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def old_pip(version: str) -> Path:
    folder = Path(sys.prefix) / "old-pips" / version
    if not folder.is_dir():
        message = f"there is no pip {version} at {folder}: `make install` puts it there"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


def install(lock: str, pip: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Let an old pip resolve and download what a lock names, on a day when everything has a newer release."""
    folder, requirements = old_pip(pip), tmp_path / "requirements.lock"
    tmp_path.mkdir(exist_ok=True)
    requirements.write_text(fill_index(tmp_path / "index", lock))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    with served(tmp_path / "index") as url:
        command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "install"]
        options = ["--dry-run", "--ignore-installed", "--require-hashes", "-i", url, "--requirement", str(requirements)]
        return subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=120, check=False)


# Each of the two locks of the README's commands with one of the old pips, to be quick; the test below looks at all locks.
@pytest.mark.parametrize(("name", "pip"), [("requirements.lock", PIPS[-1]), ("requirements-embedded.lock", PIPS[0])])
def test_a_lock_installs_when_everything_has_a_newer_release(name: str, pip: str, tmp_path: Path) -> None:
    lock = (REPO / name).read_text()

    done = install(lock, pip, tmp_path)

    assert done.returncode == 0, done.stderr
    [said] = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert len(said.split()) - 2 == sum(pin.applies for pin in pins_of(lock))
    assert ".post1" not in said


@pytest.mark.parametrize("pip", PIPS)
def test_a_lock_without_extras_would_have_been_noticed(pip: str, tmp_path: Path) -> None:
    lock = (REPO / "requirements.lock").read_text()
    wanted = ("pytest-cov", "pytest", "coverage", "iniconfig", "packaging", "pluggy", "pygments")
    part = "".join(f"{pin.line} \\\n" for pin in pins_of(lock) if pin.name in wanted)

    assert install(part, pip, tmp_path / "kept").returncode == 0
    done = install(without_extras(part), pip, tmp_path / "stripped")

    assert done.returncode != 0
    assert "In --require-hashes mode, all requirements must have their versions pinned" in done.stderr
    assert "coverage[toml]" in done.stderr


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_extra_that_its_packages_ask_of_each_other(name: str) -> None:
    pins = [pin for pin in pins_of((REPO / name).read_text()) if pin.applies]
    kept = {pin.name: pin.extras for pin in pins}

    missing = [
        f"{pin.name} needs {wanted.name}[{extra}]"
        for pin in pins
        for wanted in needed_by(pin)
        for extra in wanted.extras
        if extra not in kept[canonicalize_name(wanted.name)]
    ]

    assert missing == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_one_version_of_each_package_for_all_pythons(name: str) -> None:
    lock = (REPO / name).read_text()
    names = [pin.name for pin in pins_of(lock)]

    assert len(names) == len(set(names))
    assert len(re.findall(r"(?m)^[a-z0-9].*\\\n    --hash=sha256:[0-9a-f]{64}", lock)) == len(names)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index(name: str) -> None:
    assert not re.search(r"(?m)^-|://", (REPO / name).read_text())


def environment_of(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = REPO / "deploy" / "local" / "virtual-environment.sh"
    return subprocess.run([script, python, folder], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 15)])
def test_other_pythons_are_refused_in_one_line(version: tuple[int, int], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = ({version[0]}, {version[1]}, 1, 'final', 0)\n"
        "_, option, code, *rest = sys.argv\nassert option == '-c'\nsys.argv = ['-c', *rest]\nexec(code)\n"
    )
    python.chmod(0o755)

    done = environment_of(python, tmp_path / "venv")

    assert done.returncode == 1
    assert done.stderr.startswith("Moodline needs Python 3.11 to 3.14, and ")
    assert f" is {version[0]}.{version[1]}. " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = environment_of(tmp_path / "nowhere", tmp_path / "venv")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Name a Python from 3.11 to 3.14" in done.stderr
