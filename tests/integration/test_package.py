"""What is built and installed: the source distribution, the wheel made from it, and the command in a clean environment."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import moodline

REPO = Path(__file__).resolve().parents[2]


def run(*command: object, cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MOODLINE_", "PYTHON"))}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy: what is built must not depend on what lies about in the checkout."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = run("git", "ls-files", "-z", cwd=REPO).rstrip("\0")
    listed = source / "files"
    listed.write_text(tracked)
    run("tar", "--create", "--null", "--files-from", listed, "--file", source / "tree.tar", cwd=REPO)
    (source / "tree").mkdir()
    run("tar", "--extract", "--file", source / "tree.tar", cwd=source / "tree")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source / "tree", cwd=source)
    return dist


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_the_metadata_say_what_it_is(metadata: Message) -> None:
    assert metadata["Version"] == moodline.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert metadata["Author"] == "Moodline maintainers"
    assert {"embedded", "distributed"} <= set(metadata.get_all("Provides-Extra") or ())


def test_models_and_page_files_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for part in ("models/fer-1/weights.npz", "models/face-small/detector.onnx", "py.typed", ".lua", "web/static/"):
        assert any(part in name for name in names), part
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]


def test_the_source_distribution_can_be_built_again(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "models/fer-1/weights.npz"} <= names


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in an environment of its own; its dependencies are those of the tests' environment."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
    [packages] = directory.glob("lib/python*/site-packages")
    [ours] = Path(sys.prefix).glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Without `site`'s .pth files of that folder, so that the editable checkout is not found.
    (packages / "dependencies.pth").write_text(f"import sys; sys.path.append({str(ours)!r})\n")
    return directory / "bin" / "python"


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "-m", "moodline", "--version", cwd=tmp_path).strip() == moodline.__version__
    place = run(installed, "-c", "import moodline; print(moodline.__file__)", cwd=tmp_path)
    assert str(installed.parents[1]) in place
    run(installed, "-m", "moodline", "analyze", "synthetic://astronaut?seconds=2", "--json", "t.json", cwd=tmp_path)
    assert (tmp_path / "t.json").is_file()


# To be enabled together with the one importable package: until then the wheel has five top-level packages.
ONE_PACKAGE = pytest.mark.skip(reason="the wheel still installs services, shared, training and models beside moodline")


@ONE_PACKAGE
def test_only_one_top_level_package_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"moodline"}


@ONE_PACKAGE
def test_it_runs_beside_a_users_own_packages_of_the_same_names(installed: Path, tmp_path: Path) -> None:
    for name in ("models", "shared", "services", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is the user\\'s own')\n")
    run(installed, "-m", "moodline", "analyze", "synthetic://astronaut?seconds=2", "--json", "t.json", cwd=tmp_path)
    assert (tmp_path / "t.json").is_file()
