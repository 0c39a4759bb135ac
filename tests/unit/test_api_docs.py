"""`docs/api.md` names everything that there is, and its examples are real."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from moodline.services.api.models import ModelPage, NewStream, StreamChange
from moodline.services.api.problems import PROBLEMS
from moodline.services.report.document import PointDocument, TimelineDocument
from moodline.services.report.export import CSV_FIELDS
from moodline.services.report.stream_document import StreamAnswer
from moodline.services.report.tracks import TrackDocument
from moodline.shared.streams import FailureReason, StreamState
from moodline.shared.timeline.points import EmptyReason
from tests.support.api import NOW_US, ApiWorld, nobody, smiling

BASE = "http://127.0.0.1:8000"
EXAMPLE = re.compile(r"```console\n\$ (?P<command>curl.*?)\n```\n\n```(?P<kind>json|csv)\n(?P<answer>.*?)\n```", re.DOTALL)


@pytest.fixture(scope="module")
def page(repo: Path) -> str:
    return (repo / "docs/api.md").read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    readiness = dict.fromkeys(("aggregator", "classifier", "detector", "ingest", "prune"), True)
    with ApiWorld(tmp_path, readiness=lambda: readiness) as world:
        (world.media / "lobby.mp4").write_bytes(b"x")
        yield world


def ask(world: ApiWorld, command: str) -> str:
    """Do what a curl command of the page does; return the answer as the page would show it."""
    words = shlex.split(command.replace("\\\n", ""))[1:]
    method, headers, body, url = "GET", {"host": "127.0.0.1:8000"}, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        elif word != "-s":
            url = word
    assert url.startswith(BASE), command
    answer = world.http.request(method, url.removeprefix(BASE), headers=headers, content=body)
    return answer.text.replace(world.media.as_uri(), "file:///srv/media").replace(str(world.media), "/srv/media")


def prepare(world: ApiWorld, command: str) -> None:
    """Let happen what has happened by the time of an example."""
    progress = world.store.load(["lobby"])[0]
    if command.endswith("/streams/lobby"):
        video = {"width": 1920, "height": 1080, "codec": "h264", "source_fps": "30000/1001"}
        since_us = NOW_US + 1_250_000
        world.set_state("lobby", state=StreamState.PLAYING, since_us=since_us, duration_us=4_000_000, frames_sent=15, **video)
        world.play("lobby", [smiling(), smiling(share=0.4)], final=False)
    elif "/timeline" in command and progress is not None and not progress.final:
        world.play("lobby", [smiling(), smiling(share=0.4), smiling(share=0.6), nobody()])


def replay(world: ApiWorld, page: str) -> Iterator[tuple[str, str, str]]:
    """Yield command, answer on the page, and real answer of every example, in order."""
    for match in EXAMPLE.finditer(page):
        prepare(world, match["command"])
        yield match["command"], match["answer"], ask(world, match["command"])


def test_the_examples_are_real(world: ApiWorld, page: str) -> None:
    examples = list(replay(world, page))
    assert len(examples) == page.count("```console") == 18
    for command, shown, real in examples:
        if real.startswith("{"):
            assert json.loads(shown) == json.loads(real), command
        else:
            assert shown.splitlines() == real.splitlines(), command


def test_every_route_and_no_other_is_listed(world: ApiWorld, page: str) -> None:
    paths = world.http.get("/openapi.json").json()["paths"]
    routes = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE)) == routes


def test_every_parameter_is_explained_with_its_route(world: ApiWorld, page: str) -> None:
    sections = re.split(r"^### ", page, flags=re.MULTILINE)
    for path, verbs in world.http.get("/openapi.json").json()["paths"].items():
        for verb, operation in verbs.items():
            for parameter in operation.get("parameters", []):
                name = {"if-match": "If-Match", "accept": "Accept", "last-event-id": "Last-Event-ID"}.get(
                    parameter["name"], parameter["name"]
                )
                said = [section for section in sections if f"`{verb.upper()} {path}`" in section]
                wanted = f"{{{name}}}" if parameter["in"] == "path" else f"`{name}`"
                assert any(wanted in section for section in said), (verb, path, name)


@pytest.mark.parametrize(
    "model", [ModelPage, NewStream, StreamChange, StreamAnswer, TimelineDocument, PointDocument, TrackDocument]
)
def test_every_field_is_explained(page: str, model: type[BaseModel]) -> None:
    assert [name for name in fields(model.model_json_schema()) if f"`{name}`" not in page] == []


def fields(schema: dict[str, Any]) -> set[str]:
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}


@pytest.mark.parametrize("words", [StreamState, FailureReason, EmptyReason])
def test_every_fixed_word_is_explained(page: str, words: type[StreamState]) -> None:
    assert [word.value for word in words if f"`{word}`" not in page] == []


def test_every_error_code_and_no_other_is_listed(page: str) -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3} \| .*) \|$", page, re.MULTILINE))
    assert rows == {code: f"{status} | {meaning}" for code, (status, meaning) in PROBLEMS.items()}


def test_every_column_is_listed_in_order(page: str) -> None:
    listed = next(line for line in page.splitlines() if line.startswith("`start`, `position_s`"))
    assert listed == ", ".join(f"`{name}`" for name in CSV_FIELDS) + "."
