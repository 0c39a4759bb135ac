"""One vocabulary of events and fields, bound ids, and no secrets."""

import ast
import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moodline.shared.log import bind, bound, configure_logging, masked
from moodline.shared.log_events import EVENTS, FIELDS, FOREIGN

_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def calls(repo: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a logger, and where it is."""
    for root in ("shared", "services", "training", "moodline"):
        for path in (repo / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {*_LEVELS, "log"}:
                    owner = node.func.value
                    if isinstance(owner, ast.Name) and owner.id in ("log", "_log", "logger"):
                        yield f"{path.relative_to(repo)}:{node.lineno}", node


def event_of(call: ast.Call) -> object:
    assert isinstance(call.func, ast.Attribute)
    name = call.args[1 if call.func.attr == "log" else 0]
    return name.value if isinstance(name, ast.Constant) else ast.unparse(name)


def test_every_logged_event_is_in_the_vocabulary_and_each_is_logged(repo: Path) -> None:
    found = {where: event_of(call) for where, call in calls(repo)}
    assert len(found) > 50
    assert {where: name for where, name in found.items() if name not in EVENTS} == {}
    assert set(EVENTS) - set(found.values()) == {FOREIGN}


def test_every_field_is_in_the_vocabulary(repo: Path) -> None:
    used = set()
    for where, call in calls(repo):
        for extra in (keyword.value for keyword in call.keywords if keyword.arg == "extra"):
            if isinstance(extra, ast.Dict):
                names = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
                assert names <= set(FIELDS), where
                used |= names
    assert len(used) > 25
    assert not {"password", "token", "key", "secret", "authorization"} & set(FIELDS)


def test_the_page_shows_all_of_both(repo: Path) -> None:
    page = (repo / "docs" / "logs.md").read_text()
    events, fields = (part.split("\n## ")[0] for part in page.split("## Events")[1].split("## Fields"))
    for table, shown in ((EVENTS, events), (FIELDS, fields)):
        rows = {line.split("`")[1]: line for line in shown.splitlines() if line.startswith("| `")}
        assert rows.keys() == table.keys()
        for name, meaning in table.items():
            assert rows[name] == f"| `{name}` | {meaning} |"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error of a process that logs JSON at every level."""
    root, showing = logging.getLogger(), logging.captureWarnings
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("debug", "json")
    yield stream
    showing(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_an_event_is_one_object_with_its_fields(written: io.StringIO) -> None:
    logging.getLogger("moodline.ingest").warning("stream.failed", extra={"stream_id": "a", "reason": "codec"})
    (line,) = lines(written)
    assert line | {"ts": 0} == {
        "ts": 0,
        "level": "warning",
        "logger": "moodline.ingest",
        "event": "stream.failed",
        "stream_id": "a",
        "reason": "codec",
    }


def test_what_a_library_says_is_one_event_with_its_words(written: io.StringIO) -> None:
    logging.getLogger("some.library").error("could not %s", "connect", extra={"event": "theirs"})
    (line,) = lines(written)
    assert (line["event"], line["text"]) == (FOREIGN, "could not connect")


def test_a_thread_s_lines_carry_what_it_is_bound_to_and_no_other_s(written: io.StringIO) -> None:
    log = logging.getLogger("moodline.ingest")

    def read(stream: str, session: int) -> None:
        with bound(stream_id=stream):
            log.info("stream.playing")
            bind(session=session)
            log.info("stream.ended")

    threads = [threading.Thread(target=read, args=(f"s{number}", number)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    bind(session=9)
    log.info("worker.started")
    found = {(line["event"], line.get("stream_id"), line.get("session")) for line in lines(written)}
    assert found == {
        ("stream.playing", "s1", None),
        ("stream.ended", "s1", 1),
        ("stream.playing", "s2", None),
        ("stream.ended", "s2", 2),
        ("worker.started", None, None),
    }


def test_secrets_are_masked_wherever_they_are(written: io.StringIO) -> None:
    log = logging.getLogger("some.library")
    log.warning("GET rtsp://viewer:s3cret@camera/1 failed", extra={"detail": "sasl.password=s3cret&x=1"})
    try:
        raise ValueError("Authorization: Bearer s3cret")
    except ValueError:
        log.exception("token = s3cret, api_key='s3cret'")
    assert "s3cret" not in written.getvalue()
    assert "rtsp://***@camera/1" in written.getvalue()
    assert len(lines(written)) == 2


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8000/streams", "the camera refused the password", "12:00 @ noon", "key moodline.frames.live.v1"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text
