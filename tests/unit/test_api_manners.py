"""What HTTP itself asks of an API: HEAD, Allow, validators, negotiation, compression; and nothing unknown is ignored."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from moodline.services.api import negotiation
from moodline.services.api.server import ApiServer
from moodline.services.api.tables import POINT_COLUMNS
from moodline.services.report.export import CSV_FIELDS
from moodline.services.web.mount import _PageRoutes
from tests.support.access import rules
from tests.support.api import NOW_S, ApiWorld, nobody, smiling

LOBBY = "/api/v1/streams/lobby"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


@pytest.fixture
def played(world: ApiWorld) -> ApiWorld:
    world.add("lobby")
    world.play("lobby", [smiling(), nobody(), smiling(share=0.4)] * 20)
    return world


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["field"]


# Parameters


def test_every_route_refuses_a_parameter_that_it_does_not_know(played: ApiWorld) -> None:
    filled = {"stream_id": "lobby", "track": "1", "rule_id": "x", "name": "x"}
    asked = 0
    for rule in rules(played.app):
        if rule.method == "WS" or not hasattr(rule.route, "dependant"):
            continue
        path = rule.path
        for name, value in filled.items():
            path = path.replace(f"{{{name}}}", value)
        answer = played.http.request(rule.method, path, params={"froom": "-1h"})
        assert problem(answer) == (422, "invalid_request", "froom"), (rule.method, path)
        asked += 1
    assert asked > 35


def test_a_parameter_that_is_given_twice_is_refused_unless_it_may_be(played: ApiWorld) -> None:
    assert problem(played.http.get(f"{LOBBY}/timeline?from=-1s&from=-2s")) == (422, "invalid_request", "from")
    assert played.http.get("/api/v1/streams?label=a&label=b").status_code == 200
    assert played.http.get("/api/v1/compare?stream=lobby&stream=lobby").status_code == 200


@pytest.mark.parametrize("cursor", ["nonsense", "lobby", "", "%00", "AAAA", "zzzzzzzz", "é"])
def test_a_cursor_that_nobody_gave_is_refused(world: ApiWorld, cursor: str) -> None:
    for name in ("lobby", "yard", "zoo"):
        world.add(name)
    assert problem(world.get("/streams", cursor=cursor)) == (422, "invalid_query", "cursor")


def test_a_cursor_is_good_after_its_stream_has_gone(world: ApiWorld) -> None:
    for name in ("a", "b", "c"):
        world.add(name)
    cursor = world.get("/streams", limit=2).json()["next_cursor"]
    assert world.http.delete("/api/v1/streams/b").status_code == 204
    assert [each["id"] for each in world.get("/streams", cursor=cursor).json()["streams"]] == ["c"]


# Methods


def test_head_is_get_without_a_body(played: ApiWorld) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/api/v1/streams", LOBBY, f"{LOBBY}/timeline"):
        got, head = played.http.get(path), played.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(got.content))
    assert played.http.head(f"{LOBBY}x").status_code == 404
    assert played.http.head("/api/v1/events").headers["content-type"].startswith("text/event-stream")


def test_head_counts_as_head(played: ApiWorld) -> None:
    played.http.head(LOBBY)
    labels = {"route": "/api/v1/streams/{stream_id}", "method": "HEAD", "status": "2xx"}
    assert played.metrics.registry.get_sample_value("moodline_http_request_seconds_count", labels) == 1


def test_allow_names_every_method_of_a_path(played: ApiWorld) -> None:
    def allowed(method: str, path: str) -> set[str]:
        answer = played.http.request(method, path)
        assert answer.status_code == 405, (method, path)
        return set(answer.headers["allow"].split(", "))

    assert allowed("PUT", LOBBY) == {"GET", "HEAD", "PATCH", "DELETE"}
    assert allowed("PUT", "/api/v1/streams") == {"GET", "HEAD", "POST"}
    assert allowed("GET", f"{LOBBY}/pause") == {"POST"}
    assert allowed("HEAD", f"{LOBBY}/pause") == {"POST"}
    assert allowed("PATCH", "/api/v1/session") == {"GET", "HEAD", "POST", "DELETE"}
    assert allowed("POST", "/healthz") == {"GET", "HEAD"}
    assert allowed("POST", "/openapi.json") == {"GET", "HEAD"}


def test_the_page_has_the_same_manners(played: ApiWorld) -> None:
    async def page(scope: Scope, _receive: Receive, send: Send) -> None:
        raise AssertionError(f"the page is not asked for {scope['method']} {scope['path']}")

    played.app.router.routes.append(_PageRoutes(page, played.app.state.context))
    for path in ("/", "/streams/lobby", "/sign-in", "/favicon.ico"):
        head = played.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"].startswith(("text/html", "image/svg"))
        for method in ("PUT", "POST", "DELETE"):
            answer = played.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD"), (method, path)
            assert answer.json()["error"]["code"] == "method_not_allowed"


# Validators


def test_what_has_not_changed_is_304(played: ApiWorld) -> None:
    for path in (LOBBY, f"{LOBBY}/timeline", f"{LOBBY}/summary", f"{LOBBY}/tracks", "/api/v1/streams", "/openapi.json"):
        first = played.http.get(path)
        tag = first.headers["etag"]
        for held in (tag, f'"other", {tag}', f"W/{tag.removeprefix('W/')}", "*"):
            again = played.http.get(path, headers={"if-none-match": held})
            assert (again.status_code, again.content) == (304, b""), (path, held)
            assert again.headers["etag"].removeprefix("W/") == tag.removeprefix("W/")
            assert "content-length" not in again.headers
        assert played.http.head(path, headers={"if-none-match": tag}).status_code == 304
        assert played.http.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_the_same_revision_with_another_state_is_not_304(played: ApiWorld) -> None:
    world = played
    world.add("yard")
    before = world.get("/streams/yard")
    world.set_state("yard", state="playing", frames_sent=3)
    after = world.http.get("/api/v1/streams/yard", headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["revision"] == before.json()["revision"]


def test_a_tag_of_a_get_is_good_for_a_change(played: ApiWorld) -> None:
    tag = played.http.get(LOBBY).headers["etag"]
    assert played.http.patch(LOBBY, json={"labels": {"a": "1"}}, headers={"if-match": tag}).status_code == 200
    refused = played.http.patch(LOBBY, json={"labels": {"a": "2"}}, headers={"if-match": tag})
    assert problem(refused) == (412, "precondition_failed", None)
    for tags in ('"abc"', '"1", "7"', '""'):
        assert played.http.patch(LOBBY, json={"labels": {}}, headers={"if-match": tags}).status_code == 412
    assert played.http.patch(LOBBY, json={"labels": {"a": "3"}}, headers={"if-match": '"1", "2"'}).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")])
def test_no_change_ignores_if_match(played: ApiWorld, method: str, path: str) -> None:
    refused = played.http.request(method, f"{LOBBY}{path}", headers={"if-match": '"9"'})
    assert problem(refused) == (412, "precondition_failed", None)
    assert played.http.request(method, f"{LOBBY}{path}", headers={"if-match": '"1"'}).is_success


def test_only_what_is_final_and_does_not_depend_on_now_may_be_kept(played: ApiWorld) -> None:
    window = {"from": "2026-05-01T12:00:00Z", "to": "2026-05-01T12:00:10Z"}
    for path in ("/timeline", "/summary"):
        assert "max-age" in played.get(f"/streams/lobby{path}", **window).headers["cache-control"]
        assert played.get(f"/streams/lobby{path}").headers["cache-control"] == "no-store"
        assert played.get(f"/streams/lobby{path}", **{"from": "-10s", "to": "now"}).headers["cache-control"] == "no-store"
    assert "max-age" in played.get("/streams/lobby/timeline", format="ndjson", **window).headers["cache-control"]
    played.add("yard")
    played.play("yard", [smiling(final=False)], final=False)
    assert played.get("/streams/yard/timeline", **window).headers["cache-control"] == "no-store"


# Compression


def test_large_answers_are_compressed_for_who_takes_it(played: ApiWorld) -> None:
    with ApiServer(played.app, "127.0.0.1", 0) as server, httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:

        def ask(coding: str, path: str = f"{LOBBY}/timeline", **headers: str) -> httpx.Response:
            return http.get(path, headers={"accept-encoding": coding} | headers)

        packed = ask("gzip")
        assert packed.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in packed.headers["vary"].lower()
        assert packed.json() == ask("identity").json()
        assert int(packed.headers["content-length"]) < len(packed.content) / 5
        for coding in ("identity", "gzip;q=0", "br", ""):
            assert "content-encoding" not in ask(coding).headers, coding
        assert "content-encoding" not in ask("gzip", "/healthz").headers
        assert "content-encoding" not in ask("gzip", f"{LOBBY}/timeline?format=parquet").headers
        again = ask("gzip", **{"if-none-match": packed.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


# Formats


def rows_of(answer: httpx.Response, how: str) -> list[dict[str, Any]]:
    if how == "ndjson":
        return [json.loads(line) for line in answer.text.splitlines()]
    pyarrow = pytest.importorskip("pyarrow")
    if how == "parquet":
        from pyarrow import parquet

        return parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    return pyarrow.ipc.open_stream(answer.content).read_all().to_pylist()


@pytest.mark.parametrize("how", ["ndjson", "parquet", "arrow"])
@pytest.mark.parametrize("by", ["format", "accept"])
def test_a_timeline_is_the_same_in_every_format(played: ApiWorld, how: str, by: str) -> None:
    media = negotiation.MEDIA_TYPES[negotiation.Format(how)][0]
    asked = {"params": {"format": how}} if by == "format" else {"headers": {"accept": f"{media}, text/html;q=0.1"}}
    answer = played.http.get(f"{LOBBY}/timeline", **asked)
    assert answer.headers["content-type"].partition(";")[0] == media
    points, rows = played.get("/streams/lobby/timeline").json()["points"], rows_of(answer, how)
    assert len(rows) == len(points) == 60
    for point, row in zip(points, rows, strict=True):
        if how == "ndjson":
            assert row == point
            continue
        assert set(row) == set(CSV_FIELDS)
        assert row["start"].isoformat() == point["start"].replace("Z", "+00:00")
        assert (row["faces"], row["empty"], row["models"], row["final"]) == tuple(
            point[name] for name in ("faces", "empty", "models", "final")
        )
        assert row["smoothed_happy"] == (point["smoothed"] or {}).get("happy")


@pytest.mark.parametrize("how", ["csv", "ndjson", "parquet", "arrow"])
@pytest.mark.parametrize("path", ["/streams/lobby/tracks", "/streams/lobby/tracks/1", "/compare?stream=lobby"])
def test_everything_that_is_a_table_comes_in_every_format(played: ApiWorld, path: str, how: str) -> None:
    answer = played.http.get(f"/api/v1{path}{'&' if '?' in path else '?'}format={how}")
    assert answer.status_code == 200, answer.text
    assert f".{negotiation.Format(how)}"[:4] in answer.headers["content-disposition"]
    found = answer.text.splitlines()[1:] if how == "csv" else rows_of(answer, how)
    assert len(found) == {"/streams/lobby/tracks": 1}.get(path, 60)


def test_csv_columns_are_those_of_all_tables() -> None:
    assert tuple(column.name for column in POINT_COLUMNS) == CSV_FIELDS


def test_an_empty_timeline_has_its_columns_in_every_format(world: ApiWorld) -> None:
    world.add("lobby")
    assert world.get("/streams/lobby/timeline", format="csv").text == ",".join(CSV_FIELDS) + "\r\n"
    assert world.get("/streams/lobby/timeline", format="ndjson").text == ""
    for how in ("parquet", "arrow"):
        assert rows_of(world.get("/streams/lobby/timeline", format=how), how) == []


@pytest.mark.parametrize("path", ["/timeline", "/tracks", "/tracks/1"])
def test_what_is_not_to_be_had_is_406(played: ApiWorld, path: str) -> None:
    assert problem(played.http.get(f"{LOBBY}{path}?format=xml")) == (406, "not_acceptable", "format")
    for accept in ("application/xml", "text/csv;q=0", "image/*", "application/json;q=0, text/html"):
        assert problem(played.http.get(f"{LOBBY}{path}", headers={"accept": accept})) == (406, "not_acceptable", "Accept")
    assert played.http.get(f"{LOBBY}{path}?format=csv", headers={"accept": "application/xml"}).status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV ; header=present", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("application/ndjson", "application/x-ndjson"),
        ("*/*;q=0.1, application/json;q=0", "text/csv"),
    ],
)
def test_accept_is_read_as_it_is_meant(played: ApiWorld, accept: str, kind: str) -> None:
    answer = played.http.get(f"{LOBBY}/timeline", headers={"accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize("path", [LOBBY, "/api/v1/streams", f"{LOBBY}/summary", "/healthz", "/api/v1/session"])
def test_routes_with_one_format_say_so_too(played: ApiWorld, path: str) -> None:
    assert problem(played.http.get(path, headers={"accept": "text/csv"})) == (406, "not_acceptable", "Accept")
    assert played.http.get(path, headers={"accept": "application/*"}).status_code == 200
    assert problem(played.http.get(path, params={"format": "csv"})) == (422, "invalid_request", "format")


def test_without_the_package_parquet_is_not_to_be_had_and_the_answer_says_why(
    played: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negotiation, "find_spec", lambda name: None)
    refused = played.get("/streams/lobby/timeline", format="parquet")
    assert problem(refused) == (406, "not_acceptable", "format")
    assert "moodline[parquet]" in refused.json()["error"]["message"]
    refused = played.http.get(f"{LOBBY}/timeline", headers={"accept": "application/vnd.apache.parquet"})
    assert "moodline[parquet]" in refused.json()["error"]["message"]
    fallback = {"accept": "application/vnd.apache.parquet, application/json;q=0.5"}
    assert played.http.get(f"{LOBBY}/timeline", headers=fallback).headers["content-type"] == "application/json"


# Times and resolution


def test_times_as_grafana_and_programs_write_them(played: ApiWorld) -> None:
    seconds = int(NOW_S)
    asked = [
        {"from": str(seconds), "to": str(seconds + 10)},
        {"from": str(seconds * 1000), "to": str((seconds + 10) * 1000)},
        {"from": "now-60s", "to": "now-50s"},
        {"from": "2026-05-01T12:00:00Z", "to": "2026-05-01T12:00:10Z"},
    ]
    answers = [played.get("/streams/lobby/timeline", **each).json() for each in asked]
    assert len(answers[0]["points"]) == 10
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("offset_s", [0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.999, 3.4, 4.999])
@pytest.mark.parametrize(("asked", "resolution_s"), [("-10min", 1), ("now-10m", 1), ("-100min", 10), ("-601s", 10)])
def test_the_same_question_always_gets_the_same_resolution(
    world: ApiWorld, offset_s: float, asked: str, resolution_s: int
) -> None:
    answer = world.http.post("/api/v1/streams", json={"id": "door", "url": "push://"})
    assert answer.status_code == 201, answer.text
    world.play("door", [smiling()] * 7000, final=False, faces=False)
    for latest_s in (7000, 7003, 7005):
        world.clock.now = NOW_S + latest_s + offset_s
        body = world.get("/streams/door/timeline", **{"from": asked}).json()
        assert body["resolution_s"] == resolution_s, (latest_s, len(body["points"]))
        assert len(body["points"]) <= 601


def test_an_asked_resolution_does_not_fail_from_one_second_to_the_next(world: ApiWorld) -> None:
    world.http.post("/api/v1/streams", json={"id": "door", "url": "push://"})
    world.play("door", [smiling()] * 6000, final=False, faces=False)
    for offset_s in (0.0, 0.3, 0.9):
        world.clock.now = NOW_S + 6000 + offset_s
        asked = {"from": "-5000s", "to": "now", "resolution": "1s"}
        assert world.get("/streams/door/timeline", **asked).status_code == 200


def test_ids_are_compared_as_typed(world: ApiWorld) -> None:
    for name in ("Front_Door", "front_door", "_back", "FRONT.DOOR-2"):
        assert world.add(name)["id"] == name
    assert world.get("/streams/Front_door").status_code == 404
    assert world.http.delete("/api/v1/streams/front_door").status_code == 204
    assert {each["id"] for each in world.get("/streams").json()["streams"]} == {"Front_Door", "_back", "FRONT.DOOR-2"}
    assert world.get("/streams/Front_Door").json()["id"] == "Front_Door"
