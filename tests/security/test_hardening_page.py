"""docs/hardening.md is true: its settings are taken, its commands run, its limits are those of the code."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moodline.services.alerts.webhook import webhook_policy
from moodline.services.api import admission, connections, uploads
from moodline.services.auth import authenticator
from moodline.services.auth.callers import Role
from moodline.services.cli.app import app
from moodline.services.web import page_authenticator, policy
from moodline.shared.net_policy import net_policy_of
from moodline.shared.settings import Settings, load_settings

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "hardening.md").read_text()
ASSIGNED = re.compile(r"`(MOODLINE_[A-Z_]+)=([^`\n]+)`")


def limits() -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the table of limits."""
    table = PAGE.partition("## What is limited")[2].partition("\n\n`")[0]
    for line in table.splitlines():
        if line.startswith("| ") and not line.startswith(("| what |", "| ---")):
            what, limit, setting = (cell.strip() for cell in line.strip("|").split("|"))
            yield what, limit, setting


def test_every_setting_of_the_page_is_taken_with_the_value_that_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(ASSIGNED.findall(PAGE))
    assert len(found) >= 3
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    settings: Settings = load_settings()
    for name, value in found.items():
        group, _, rest = name.removeprefix("MOODLINE_").lower().partition("_")
        assert str(getattr(getattr(settings, group), rest)) == value, name
    cameras = settings.ingest
    net_policy_of(cameras.schemes, cameras.allow_loopback, cameras.allow_networks, cameras.deny_networks)
    webhook_policy(settings.alerts)


def test_the_first_key_is_made_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"`moodline (keys add [^`]+)`", PAGE)
    assert found is not None
    monkeypatch.setenv("MOODLINE_DATA_DIR", str(tmp_path))
    done = CliRunner().invoke(app, found[1].split())
    assert done.exit_code == 0, done.output
    assert re.search(r"^mdl_[0-9a-f]{12}_[A-Za-z0-9_-]{43}$", done.output, re.MULTILINE)
    listed = CliRunner().invoke(app, ["keys", "ls"])
    assert Role.ADMIN in listed.output


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`python -m (bench\.[a-z]+)`", PAGE))))
def test_what_measured_is_there_and_starts(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_page_names_a_file_that_is_there() -> None:
    for path in re.findall(r"`python (deploy/[a-z_.]+)`", PAGE):
        assert (REPO / path).is_file()


def test_the_limits_are_those_of_the_code() -> None:
    settings = load_settings()
    rows = {what: (limit, setting) for what, limit, setting in limits()}
    api, quotas = settings.api, settings.quotas
    told = {
        "a request's head": f"{api.head_timeout_s:g} s, {connections._HEAD_BYTES // 1024} KiB",
        "a body before it is known who asks": f"{admission.OPEN_BODY_BYTES // 1024} KiB, {admission.JSON_BODY_TIMEOUT_S:g} s",
        "a JSON body": f"{admission.JSON_BODY_BYTES // 1024} KiB, {admission.JSON_BODY_QUOTES:,} quotation marks, 10 s",
        "a body in chunks": f"{connections._CHUNKS:,} of them, or {connections._CHUNK_BYTES} bytes in each on average",
        "connections": f"{api.max_connections:,}, of one address {api.max_connections_per_address}",
        "a message of a web socket": f"{connections.MESSAGE_BYTES // 1024**2} MiB, uncompressed",
        "a reader that takes nothing of its answer": f"{connections._STALLED_S:g} s",
        "requests": f"{api.rate_per_s:g} a second of one key or address, {api.rate_burst:,} at once",
        "unknown keys": f"{authenticator._FAILURES} of one address",
        "an upload": f"{uploads._LEAST_BYTES // 1024} KiB in a minute at least",
        "pages whose browser has not opened its web socket": str(page_authenticator._WAITING_LIMIT),
        "what one key has at a time": "streams, alert rules, uploads, their bytes, browsers, requests",
    }
    assert rows.keys() == told.keys()
    for what, limit in told.items():
        assert rows[what][0].startswith(limit), what
    assert 2 * settings.uploads.idle_timeout_s == 60
    assert len(type(quotas).model_fields) == rows["what one key has at a time"][0].count(",") + 1


def test_the_settings_of_the_limits_exist() -> None:
    known = (REPO / "docs" / "settings.md").read_text()
    for _, _, setting in limits():
        for name in re.findall(r"`(MOODLINE_[A-Z_]+)", setting):
            assert name in known


def test_the_page_still_needs_the_evaluation_that_its_policy_allows() -> None:
    """Once NiceGUI's browser part evaluates nothing any more, `unsafe-eval` goes, and this test with it."""
    nicegui = Path(find_spec("nicegui").origin or "").parent / "static"  # type: ignore[union-attr]  # it is installed for tests
    assert re.search(r"\beval\(", (nicegui / "nicegui.js").read_text())
    assert re.search(r"\bFunction\(", (nicegui / "vue.esm-browser.prod.js").read_text())
    assert "'unsafe-eval'" in policy._POLICY
    assert "unsafe" not in page_authenticator._SIGN_IN_POLICY
