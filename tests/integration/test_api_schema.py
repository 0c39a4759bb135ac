"""The API keeps to its own description, whatever is sent: schemathesis makes requests from `/openapi.json`."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from moodline.services.api import PREFIX
from moodline.services.api.problems import PROBLEMS, ErrorAnswer
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import Keyring
from moodline.shared.settings import ApiSettings
from tests.support.access import make_key
from tests.support.api import ApiWorld, smiling

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis, which makes the requests, is not installed")
hypothesis = pytest.importorskip("hypothesis")
strategies = pytest.importorskip("hypothesis.strategies")

MODES: Final = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
"""Requests as the description wants them, and others."""

EXAMPLES: Final = 15
"""Requests per route."""

ENDLESS: Final = "/api/v1/events"
"""Its answers go on until the client leaves; it has tests of its own."""


KNOWN: Final = {"stream_id": "lobby", "track": 1, "rule_id": "away", "name": "front"}
"""What paths are made of that lead to something."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    # Open on purpose: a key that is made by one request must not shut out the next.
    with ApiWorld(tmp_path_factory.mktemp("schema"), api=ApiSettings(access="open", rate_per_s=0)) as world:
        yield world


@pytest.fixture(scope="module")
def described(world: ApiWorld) -> Iterator[Any]:
    with ApiServer(world.app, "127.0.0.1", 0) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(path=ENDLESS)


def furnish(world: ApiWorld) -> None:
    """Let there be, again, what the paths lead to: a request may just have deleted it."""
    if KNOWN["stream_id"] not in {spec.stream_id for spec in world.store.list_streams()}:
        world.add("lobby", labels={"site": "berlin"})
        world.play("lobby", [smiling(), smiling(share=0.4)])
    if KNOWN["rule_id"] not in {rule.key for rule in world.store.list_entries("alert-rules")}:
        assert world.http.post(f"{PREFIX}/alerts/rules", json={"id": "away", "stream": "lobby", "kind": "offline"}).is_success
    if KNOWN["name"] not in {key.record.name for key in Keyring(world.store, world.clock).list_keys()}:
        make_key(world, "front", Role.VIEWER)


def leading_somewhere(case: Any) -> Any:
    """Return a request whose path leads to something, and whose file is there."""
    case.path_parameters |= {name: value for name, value in KNOWN.items() if name in case.path_parameters}
    if isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = "clip.mp4"
    return case


def check_error_shape(_context: Any, response: Any, _case: Any) -> None:
    """Raise unless an error has the one shape, a code from the table, and the status that belongs to it."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/json"]
    error = ErrorAnswer.model_validate_json(response.content).error
    assert PROBLEMS[error.code].status == response.status_code
    assert error.code != "internal", error.message
    assert error.message


def check_route(world: ApiWorld, operation: Any) -> Counter[int]:
    """Send requests to one route, check every answer, and return how many there were of each status."""
    described = (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
    checks = [check_error_shape, *schemathesis.checks.CHECKS.get_by_names(described)]
    statuses: Counter[int] = Counter()
    good, other = (operation.as_strategy(generation_mode=mode) for mode in MODES)

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategies.one_of(good.map(leading_somewhere), good, other))
    def ask(case: Any) -> None:
        furnish(world)
        response = case.call(timeout=20)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks)

    ask()
    return statuses


def test_every_answer_of_every_route_is_described(world: ApiWorld, described: Any) -> None:
    asked = {each.ok().label: check_route(world, each.ok()) for each in described.get_all_operations()}
    assert len(asked) > 25
    # Most are not only refused.
    reached = {label for label, statuses in asked.items() if any(status < 300 for status in statuses)}
    assert len(reached) >= len(asked) * 3 // 4, sorted(set(asked) - reached)
