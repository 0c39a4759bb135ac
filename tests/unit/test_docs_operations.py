"""docs/operations.md can be relied on at night: every alert is in it, every command and setting that pages name exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
import yaml

from moodline.services.cli.app import app
from moodline.shared.bus.kafka_settings import parse_url
from moodline.shared.clock import SystemClock
from moodline.shared.store.redis_link import RedisLink
from tests.conftest import REPO

OPERATED = [REPO / "docs" / name for name in ("operations.md", "kubernetes.md", "scaling.md")]
WrongUsage: Any = typer.BadParameter.__base__
"""What the parser raises on a command line that it cannot read."""
RULES = sorted((REPO / "deploy/prometheus").rglob("*.y*ml"))
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def alerts() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and annotations of every alert of the rule files."""
    for path in RULES:
        for group in (yaml.safe_load(path.read_text()) or {}).get("groups", []):
            yield from ((rule["alert"], rule.get("annotations", {})) for rule in group["rules"] if "alert" in rule)


def anchor(heading: str) -> str:
    """Return the anchor that a heading of Markdown gets."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def command_lines(text: str) -> Iterator[str]:
    """Yield every `moodline …` command line in code of a page, or in a text of a rule file; not a user of this name."""
    for match in CODE.finditer(text):
        for line in (match[1] or match[2]).splitlines():
            found = re.search(r"(?:^|[\s/$]|-- )(moodline (?!deploy|on >).*)$", line.split(" #")[0].strip())
            if found and not re.search(r"helm|docker|FILE=|\.\.\.", line.split("moodline ")[0]):
                yield found[1]


def parse(line: str) -> None:
    """Let the command line's own parser read a command line, without running it. Raises `WrongUsage`."""
    words = [word for word in shlex.split(line.replace("…", "x")) if word not in {">", "|"}][1:]
    command: Any = typer.main.get_command(app)
    name = "moodline"
    while hasattr(command, "commands"):
        while words and words[0].startswith("--"):
            words = words[2:]
        if not words:
            return
        name, *words = words
        if name not in command.commands:
            raise WrongUsage(f"no command {name}")
        command = command.commands[name]
    if words:  # `moodline keys rm` names the command; with anything after it, it must be all there
        command.make_context(name, words)


COMMANDS = sorted({(path.name, line) for path in OPERATED if path.exists() for line in command_lines(path.read_text())})


def test_there_are_commands_and_alerts_to_check() -> None:
    assert len(COMMANDS) > 15
    assert len(list(alerts())) > 10


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value[:60])
def test_every_command_line_parses(page: str, line: str) -> None:
    try:
        parse(line)
    except WrongUsage as error:
        pytest.fail(f"{page}: `{line}`: {error.format_message()}")


@pytest.mark.parametrize("line", ["moodline keys remove NAME", "moodline streams rm ID --now", "moodline audit --limit many"])
def test_a_wrong_command_line_is_noticed(line: str) -> None:
    with pytest.raises(WrongUsage):
        parse(line)


@pytest.mark.parametrize(("name", "notes"), list(alerts()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_alert_has_its_cause_and_cure(repo: Path, name: str, notes: dict[str, str]) -> None:
    page = (repo / "docs/operations.md").read_text()
    parts = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)
    texts = [part.partition("\n")[2] for part in parts if part.startswith(f"Alert: {name}\n")]
    assert len(texts) == 1, f"docs/operations.md has {len(texts)} headings `### Alert: {name}`"
    assert "**Cure" in texts[0] or "| cure |" in texts[0]
    place = next((value for key, value in notes.items() if key.startswith("runbook")), "")
    assert place.endswith(f"docs/operations.md#{anchor(f'Alert: {name}')}"), f"{name} does not lead to its heading"
    for text in notes.values():
        for line in command_lines(text):
            parse(line)


def test_no_heading_is_of_an_alert_that_does_not_exist(repo: Path) -> None:
    headings = re.findall(r"^### Alert: (.*)$", (repo / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(name for name, _ in alerts())


@pytest.mark.parametrize("path", OPERATED, ids=lambda path: path.name)
def test_every_setting_and_metric_named_exists(path: Path, repo: Path) -> None:
    text = path.read_text()
    settings = set(re.findall(r"`(MOODLINE_[A-Z0-9_]+)`", (repo / "docs/settings.md").read_text()))
    for name in set(re.findall(r"MOODLINE_[A-Z0-9_]+", text)):
        assert name in settings or any(known.startswith(name) for known in settings if name.endswith("_")), (
            f"{name} is no setting"
        )
    metrics = set(re.findall(r"`(moodline_[a-z_]+)`", (repo / "docs/metrics.md").read_text()))
    for name in set(re.findall(r"`(moodline_[a-z_]+)`", text)):
        assert name in metrics, f"{name} is no metric"
    recorded = {
        rule["record"]
        for rules in RULES
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    for name in set(re.findall(r"`(moodline:[a-z0-9_:]+)`", text)):
        assert name in recorded, f"{name} is recorded by no rule"


@pytest.mark.parametrize("path", [*OPERATED, REPO / "SECURITY.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]*(?:#[^)]*)?)\)", path.read_text()):
        file, _, fragment = target.partition("#")
        page = path if not file else (path.parent / file)
        assert page.exists(), target
        if fragment and page.suffix == ".md":
            text = page.read_text()
            known = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert fragment in known | set(re.findall(r'<a id="([^"]+)"', text)), target


def test_the_urls_with_tls_are_taken(repo: Path) -> None:
    page = (repo / "docs/operations.md").read_text()
    kafka = re.findall(r"^MOODLINE_BUS_URL=(\S+\?\S+)$", page, re.MULTILINE)
    assert kafka
    for url in kafka:
        address = parse_url(url)
        assert address.properties["security.protocol"] == "SASL_SSL"
        assert address.properties["sasl.mechanism"] == "SCRAM-SHA-512"
    (store,) = re.findall(r"^MOODLINE_STORE_URL=(rediss://\S+\?\S+)$", page, re.MULTILINE)
    for url in re.findall(r"^MOODLINE_STORE_URL=(\S+)$", page, re.MULTILINE):
        RedisLink(url, SystemClock(), 0.0).close()
    pool = redis.ConnectionPool.from_url(store)
    assert pool.connection_class is redis.SSLConnection
    assert pool.connection_kwargs["ssl_ca_certs"] == "/etc/moodline/tls/redis-ca.crt"
    pool.close()
