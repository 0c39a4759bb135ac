"""The bill of materials names every package of the lock, with the version that is installed."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
LOCK = REPO / "requirements.lock"


def written(lock: Path) -> dict[str, Any]:
    command = [sys.executable, REPO / "deploy" / "sbom.py", lock]
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return document


def test_every_package_of_the_lock_is_in_it_with_its_hashes() -> None:
    document = written(LOCK)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    text = LOCK.read_text()
    assert len(document["components"]) == len(re.findall(r"^[A-Za-z0-9].*==", text, re.MULTILINE))
    assert sum(len(each["hashes"]) for each in document["components"]) == text.count("--hash=sha256:")
    assert all(each["hashes"] for each in document["components"])
    refs = [each["bom-ref"] for each in document["components"]]
    assert len(refs) == len(set(refs))
    fastapi = next(each for each in document["components"] if each["name"] == "fastapi")
    assert fastapi["purl"] == f"pkg:pypi/fastapi@{fastapi['version']}"
    assert metadata.version("fastapi").split(".")[0] == fastapi["version"].split(".")[0]


def test_a_lock_that_it_does_not_understand_is_no_bill_of_materials(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("git+https://example.com/x\n")
    with pytest.raises(subprocess.CalledProcessError):
        written(tmp_path / "lock")
