"""Fixtures that all tests share."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("moodline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("moodline"), max_examples=20)
settings.load_profile("moodline")

pytest_plugins = ["tests.support.fixtures"]

REPO = Path(__file__).resolve().parents[1]


# What takes longest is begun first where tests run side by side, so that no worker is left alone with it at the end.
_LONGEST_FIRST = ("clusters", "chaos", "e2e", "cameras_of_the_world", "files", "security", "integration", "contract", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _LONGEST_FIRST.index(item.path.relative_to(REPO / "tests").parts[0]))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MOODLINE_") and not name.startswith("MOODLINE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Give a test the logging of a new process, whatever an earlier one configured: some run commands in this process."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)
    yield
    for handler in [handler for handler in root.handlers if type(handler) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def material() -> Path:
    """Real clips and data, handed over beside the checkout; not part of the repository."""
    root = Path(os.environ.get("MOODLINE_TEST_MATERIAL", REPO.parent / "shared"))
    if not (root / "clips").is_dir():
        pytest.skip(f"no test material at {root}: set MOODLINE_TEST_MATERIAL to a folder with clips/, data/ and models/")
    return root


@pytest.fixture(scope="session")
def clips(material: Path) -> Path:
    return material / "clips"
