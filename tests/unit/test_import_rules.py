"""The import rules refuse an import that points upwards: they are not there for show."""

import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    skipped = shutil.ignore_patterns("__pycache__", "runs", "*.npz")
    for name in ("moodline", "services", "shared", "training", "models"):
        shutil.copytree(REPO / name, tmp_path / name, symlinks=True, ignore=skipped)
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    return tmp_path


def broken_rules(tree: Path) -> str:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    return run.stdout if run.returncode else ""


def plant(tree: Path, file: str, line: str) -> None:
    path = tree / file
    path.write_text(f"{path.read_text()}\n{line}\n")


def test_imports_that_point_upwards_are_refused(tree: Path) -> None:
    plant(tree, "shared/bus/partition.py", "import moodline.shared.store.records")
    plant(tree, "services/report/palette.py", "import moodline.services.web.words")
    plant(tree, "services/ingest/media/sampling.py", "import moodline.services.ingest.file.credit")
    plant(tree, "services/ingest/camera/rtsp/wire.py", "import moodline.services.ingest.camera.process.link")

    found = broken_rules(tree)

    assert "the parts of the service stand on one another BROKEN" in found
    assert "the shared parts stand on one another BROKEN" in found
    assert "ingest: worker, kinds of source, what they share BROKEN" in found
    assert "cameras: reader, process, opening, protocols, what they share BROKEN" in found


def test_the_tree_as_it_is_breaks_no_rule(tree: Path) -> None:
    assert broken_rules(tree) == ""


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("moodline", exclude_type_checking_imports=True, cache_dir=None)
    sorter = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    sorter.prepare()  # raises `CycleError`, which names the circle
