"""Every error has one shape; nothing inside shows; other sites' pages stay out."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from moodline.services.api.admission import JSON_BODY_BYTES
from moodline.services.api.middleware import BODY_LIMIT_BYTES, LimitBody
from moodline.services.api.problems import PROBLEMS
from moodline.shared.errors import StoreError, StoreUnavailableError
from moodline.shared.settings import ApiSettings
from tests.support.api import ApiWorld, smiling


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    assert PROBLEMS[code].status == status
    assert body["error"]["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/streams/", "/api/v2/streams", "/redoc", "/static/%2e%2e/x"])
def test_unknown_routes(world: ApiWorld, path: str) -> None:
    assert "/openapi.json" in error(world.http.get(path), 404, "not_found")["message"]


def test_unknown_methods(world: ApiWorld) -> None:
    answer = world.http.put("/api/v1/streams", json={})
    assert "PUT" in error(answer, 405, "method_not_allowed")["message"]
    assert "allow" in answer.headers
    error(world.http.delete("/healthz"), 405, "method_not_allowed")
    error(world.http.options("/api/v1/streams", headers={"origin": "http://evil.example"}), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("content", "headers", "says"),
    [
        (b"{", {}, "not valid JSON"),
        (b"", {}, "needs a JSON object"),
        (b"[]", {}, "needs a JSON object"),
        (b"null", {}, "needs a JSON object"),
        (b'"lobby"', {}, "needs a JSON object"),
        (b"{}", {"content-type": "text/plain"}, "needs a JSON object"),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, "needs a JSON object"),
        (b'{"id": "\xff"}', {}, "could not be read"),
        (b"[" * 100_000, {}, "could not be read"),
        (b'{"id": "a", "url": "\\ud800"}', {}, "url"),
        (b'{"id": "a", "url": "clip.mp4", "labels": {"a": "\\ud800"}}', {}, "surrogate"),
        (b'{"id": "a", "url": "clip.mp4", "labels": {"\\ud800": 1}}', {}, "surrogate"),
        (b'{"id": "a", "url": "clip.mp4", "\\ud800": 1}', {}, "surrogate"),
        (b'{"id": "a", "url": "clip.mp4", "max_side_px": 1e999}', {}, "max_side_px"),
        (b'{"id": "a", "url": "clip.mp4", "max_side_px": NaN}', {}, "max_side_px"),
        (b'{"id": "a", "url": "clip.mp4", "max_side_px": ' + b"9" * 5000 + b"}", {}, ""),
    ],
)
def test_bodies_that_cannot_be_read(world: ApiWorld, content: bytes, headers: dict[str, str], says: str) -> None:
    answer = world.http.post("/api/v1/streams", content=content, headers={"content-type": "application/json"} | headers)
    assert says in error(answer, 422, "invalid_request")["message"]


def test_a_message_stays_short_however_much_is_wrong(world: ApiWorld) -> None:
    body = {f"{'x' * 1000}{number}": 1 for number in range(120)}
    answer = world.http.post("/api/v1/streams", json=body)
    assert len(error(answer, 422, "invalid_request")["message"]) < 1500


def body_of(size: int) -> bytes:
    frame = json.dumps({"id": "lobby", "url": "clip.mp4", "x": ""}).encode()
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_limited(world: ApiWorld, chunked: bool) -> None:
    def post(size: int) -> httpx.Response:
        body = body_of(size)
        assert len(body) == size
        headers = {"content-type": "application/json"}
        if chunked:
            request = world.http.build_request(
                "POST", "/api/v1/streams", content=iter([body[:1000], body[1000:]]), headers=headers
            )
            assert "content-length" not in request.headers
            return world.http.send(request)
        return world.http.post("/api/v1/streams", content=body, headers=headers)

    assert error(post(JSON_BODY_BYTES), 422, "invalid_request")["message"] == "x: is unknown here"
    error(post(JSON_BODY_BYTES + 1), 413, "body_too_large")


def test_a_body_that_is_announced_as_too_large_is_not_even_read() -> None:
    sent: list[Message] = []

    async def never(*_: object) -> Message:
        raise AssertionError("nobody may ask for the body")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", str(BODY_LIMIT_BYTES + 1).encode())]
    asyncio.run(LimitBody(never)({"type": "http", "method": "POST", "headers": headers}, never, send))
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("path", ["/api/v1/streams", "/api/v1/streams/lobby", "/api/v1/streams/lobby/timeline"])
def test_a_store_that_is_away(world: ApiWorld, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailableError("the store at redis://store:6379 does not answer")

    monkeypatch.setattr(world.store, "list_streams", fail)
    monkeypatch.setattr(world.store, "get", fail)
    answer = world.http.get(path)
    error(answer, 503, "store_unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("failure", [ZeroDivisionError("secret"), StoreError("secret"), UnicodeError("secret")])
def test_a_fault_shows_nothing_inside(world: ApiWorld, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(world.store, "list_streams", fail)
    answer = world.http.get("/api/v1/streams")
    error(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Error" not in answer.text


# Health


def test_health_asks_nobody(world: ApiWorld) -> None:
    world.store.close()
    assert world.http.get("/healthz").json() == {"status": "ok"}


def test_ready(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, readiness=lambda: {"ingest": True, "detector": True}) as world:
        answer = world.http.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() == {"ready": True, "checks": {"store": True, "ingest": True, "detector": True}}


def test_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiWorld(tmp_path, readiness=lambda: {"ingest": True, "detector": False}) as world:
        assert error(world.http.get("/readyz"), 503, "not_ready")["message"] == "not ready: detector does not run"

        def fail() -> None:
            raise StoreUnavailableError("nobody listens")

        monkeypatch.setattr(world.store, "ping", fail)
        world.clock.now += 2
        answer = world.http.get("/readyz")
        assert (
            error(answer, 503, "not_ready")["message"]
            == "not ready: the store does not take writes (nobody listens); detector does not run"
        )
        assert "retry-after" in answer.headers


# Metrics


def count(world: ApiWorld, **labels: str) -> float | None:
    return world.metrics.registry.get_sample_value("moodline_http_request_seconds_count", labels)


def test_requests_are_measured_by_route_template(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("lobby")
    for stream_id in ("lobby", "absent", "absent2"):
        world.get(f"/streams/{stream_id}")
    world.get("/streams/lobby/tracks/77")
    world.http.get("/nowhere/1")
    world.http.get("/nowhere/2")
    world.http.request("BREW", "/nowhere")
    route = "/api/v1/streams/{stream_id}"
    assert count(world, route=route, method="GET", status="2xx") == 1
    assert count(world, route=route, method="GET", status="4xx") == 2
    assert count(world, route=f"{route}/tracks/{{track}}", method="GET", status="4xx") == 1
    assert count(world, route="unmatched", method="GET", status="4xx") == 2
    assert count(world, route="unmatched", method="other", status="4xx") == 1

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.store, "get", fail)
    world.get("/streams/lobby")
    assert count(world, route=route, method="GET", status="5xx") == 1


def test_metrics_are_exposed(world: ApiWorld) -> None:
    world.add("lobby")
    answer = world.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'moodline_http_request_seconds_count{method="POST",route="/api/v1/streams",status="2xx"} 1.0' in answer.text


# Other sites


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.5", "moodline.example:8000"])
def test_names_of_this_machine(tmp_path: Path, host: str) -> None:
    with ApiWorld(tmp_path, api=ApiSettings(url="https://moodline.example")) as world:
        assert world.http.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[::1", "x:y:z"])
def test_a_rebound_name_is_refused(world: ApiWorld, host: str) -> None:
    error(world.http.get("/api/v1/streams", headers={"host": host}), 403, "forbidden")


def test_any_name_when_others_may_reach_the_api(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, api=ApiSettings(host="0.0.0.0")) as world:
        assert world.http.get("/healthz", headers={"host": "moodline.example"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "http://[::1"])
def test_a_page_of_another_site_changes_nothing(world: ApiWorld, origin: str) -> None:
    world.add("lobby")
    for method, path in (("POST", "/pause"), ("DELETE", ""), ("PATCH", "")):
        answer = world.http.request(method, f"/api/v1/streams/lobby{path}", headers={"origin": origin})
        error(answer, 403, "forbidden")
    assert world.get("/streams/lobby").json()["revision"] == 1


def test_a_page_of_the_same_site_may_change(world: ApiWorld) -> None:
    world.add("lobby")
    answer = world.http.post("/api/v1/streams/lobby/pause", headers={"origin": "http://localhost"})
    assert answer.status_code == 200


def test_no_page_of_another_site_reads(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling()])
    answer = world.get("/streams/lobby/timeline")
    assert not [name for name in answer.headers if name.startswith("access-control")]
