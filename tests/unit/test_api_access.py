"""Every route has a rule, and who is limited to some streams learns nothing of any other by any route."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from moodline.services.alerts.records import ALERTS_LOG, RuleBook
from moodline.services.api import PREFIX
from moodline.services.api.alert_models import EventAnswer
from moodline.services.api.events import EventParameters, subscribe
from moodline.services.api.server import ApiServer
from moodline.services.auth.callers import Caller, Role
from moodline.shared.settings import ApiSettings
from moodline.shared.streams import StreamSpec
from tests.support.access import Rule, make_key, rules, socket_messages, with_key
from tests.support.api import NOW, ApiWorld, smiling

VIEW, OPERATE, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN

RULES: Final[dict[str, Role | None]] = {
    "GET /openapi.json": None,
    "GET /docs": None,
    "GET /docs/start.js": None,
    "GET /docs/{name}": None,
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": VIEW,
    "POST /api/v1/session": None,
    "DELETE /api/v1/session": None,
    "GET /api/v1/session": VIEW,
    "GET /api/v1/keys": ADMIN,
    "POST /api/v1/keys": ADMIN,
    "DELETE /api/v1/keys/{name}": ADMIN,
    "GET /api/v1/audit": ADMIN,
    "GET /api/v1/models": VIEW,
    "PUT /api/v1/models/active": ADMIN,
    "GET /api/v1/streams": VIEW,
    "POST /api/v1/streams": OPERATE,
    "GET /api/v1/streams/{stream_id}": VIEW,
    "PATCH /api/v1/streams/{stream_id}": OPERATE,
    "DELETE /api/v1/streams/{stream_id}": OPERATE,
    "POST /api/v1/streams/{stream_id}/pause": OPERATE,
    "POST /api/v1/streams/{stream_id}/resume": OPERATE,
    "GET /api/v1/streams/{stream_id}/timeline": VIEW,
    "GET /api/v1/streams/{stream_id}/summary": VIEW,
    "GET /api/v1/streams/{stream_id}/tracks": VIEW,
    "GET /api/v1/streams/{stream_id}/tracks/{track}": VIEW,
    "GET /api/v1/streams/{stream_id}/faces": VIEW,
    "GET /api/v1/streams/{stream_id}/snapshot.jpg": VIEW,
    "GET /api/v1/streams/{stream_id}/live.mjpg": VIEW,
    "GET /api/v1/events": VIEW,
    "POST /api/v1/streams/{stream_id}/frames": OPERATE,
    "WS /api/v1/streams/{stream_id}/frames": OPERATE,
    "POST /api/v1/uploads": OPERATE,
    "POST /api/v1/cameras/test": OPERATE,
    "POST /api/v1/classify": VIEW,
    "GET /api/v1/compare": VIEW,
    "GET /api/v1/alerts": VIEW,
    "GET /api/v1/alerts/rules": VIEW,
    "POST /api/v1/alerts/rules": OPERATE,
    "GET /api/v1/alerts/rules/{rule_id}": VIEW,
    "PATCH /api/v1/alerts/rules/{rule_id}": OPERATE,
    "DELETE /api/v1/alerts/rules/{rule_id}": OPERATE,
    "GET /api/v1/alerts/log": VIEW,
    "GET /api/v1/alerts/deliveries": OPERATE,
    "POST /api/v1/alerts/dry-run": VIEW,
}
"""A new route gets a line here, once somebody has thought about who may call it."""

NOT_AUDITED: Final = {
    "POST /api/v1/session": "changes nothing but the caller's own browser",
    "DELETE /api/v1/session": "changes nothing but the caller's own browser",
    "POST /api/v1/alerts/dry-run": "only looks",
    "POST /api/v1/classify": "only looks, and keeps nothing",
    "POST /api/v1/streams/{stream_id}/frames": "frames come many times a second; they are content, not changes",
}

CANARIES: Final = ("canary", "paris")
"""What only the hidden stream has in it: its file's name and its labels."""

MINE: Final = {"labels": ("site=berlin",)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        (world.media / "canary-clip.mp4").write_bytes(b"x")
        admin = with_key(world, make_key(world, "admin", ADMIN))
        for stream_id, url, site in (("mine", "clip.mp4", "berlin"), ("theirs", "canary-clip.mp4", "paris")):
            body = {"id": stream_id, "url": url, "recorded_at": NOW, "labels": {"site": site, "all": "yes"}}
            assert admin.post(f"{PREFIX}/streams", json=body).status_code == 201
            world.play(stream_id, [smiling(), smiling(share=0.4)])
        rule = {"id": "theirs", "stream": "theirs", "kind": "no_faces", "note": "canary"}
        assert admin.post(f"{PREFIX}/alerts/rules", json=rule).status_code == 201
        event = EventAnswer.model_json_schema()["examples"][0] | {"rule": "theirs", "stream": "theirs"}
        world.store.append_record(ALERTS_LOG, json.dumps(event).encode(), 10)
        yield world


def name_of(rule: Rule) -> str:
    return f"{rule.method} {rule.path}"


def address(path: str, stream_id: str) -> str:
    """Return a route's path with a stream's id, or something else where it asks for that."""
    filled = path.replace("{stream_id}", stream_id).replace("{track}", "1")
    return re.sub(r"\{\w+\}", stream_id, filled)


class TestRules:
    def test_every_route_has_a_rule_and_keeps_it(self, world: ApiWorld) -> None:
        assert {name_of(rule): rule.role for rule in rules(world.app)} == RULES

    def test_every_change_is_audited_under_its_own_name(self, world: ApiWorld) -> None:
        changes = {name_of(rule): rule for rule in rules(world.app) if rule.method not in ("GET", "HEAD", "WS")}
        assert set(NOT_AUDITED) <= set(changes)
        for name, rule in changes.items():
            wanted = None if name in NOT_AUDITED else f"{rule.method} {rule.path.removeprefix(PREFIX)}"
            assert rule.audited == wanted, name

    def test_without_a_key_every_other_route_answers_401(self, world: ApiWorld) -> None:
        for rule in rules(world.app):
            if rule.role is None or rule.method == "WS":
                continue
            for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic bWRsOg=="}):
                answer = world.http.request(rule.method, address(rule.path, "mine"), headers=headers)
                wanted = {401, 429} if "Bearer" in str(headers) else {401}
                assert answer.status_code in wanted, (name_of(rule), headers)
                assert answer.json()["error"]["code"] in ("unauthorized", "rate_limited")
                assert answer.status_code != 401 or answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("role", [VIEW, OPERATE])
    def test_a_role_is_refused_what_needs_a_higher_one(self, world: ApiWorld, role: Role) -> None:
        client = with_key(world, make_key(world, "limited", role))
        refused = 0
        for rule in rules(world.app):
            if rule.role is None or rule.method == "WS" or role.includes(rule.role):
                continue
            answer = client.request(rule.method, address(rule.path, "mine"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_allowed"), name_of(rule)
            assert f"needs the role {rule.role}" in answer.json()["error"]["message"]
            refused += 1
        assert refused >= 5
        assert [spec.stream_id for spec in world.store.list_streams()] == ["mine", "theirs"]

    def test_a_web_socket_asks_for_a_key_and_a_role(self, world: ApiWorld) -> None:
        viewer = {"authorization": f"Bearer {make_key(world, 'limited', VIEW)}"}
        paths = [rule.path for rule in rules(world.app) if rule.method == "WS"]
        assert paths
        for path in paths:
            for headers, status in (({}, 401), (viewer, 403)):
                first, *_ = socket_messages(world.app, address(path, "mine"), headers)
                assert (first["type"], first["status"]) == ("websocket.http.response.start", status)


class TestPermittedStreams:
    """A caller who may see `mine`, because of its label, asks every route for `theirs`."""

    def asked(self, path: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return addresses and parameters by which a route might be asked for the hidden stream."""
        if "{stream_id}" in path:
            return [(address(path, "theirs"), [])]
        ways: list[list[tuple[str, str]]] = [
            [],
            [("stream", "theirs")],
            [("stream", "mine"), ("stream", "theirs")],
            [("label", "site=paris")],
            [("label", "all")],
            [("label", "all=yes"), ("group_by", "site")],
            [("cursor", "n")],
            [("stream_id", "theirs")],
        ]
        return [(address(path, "theirs"), way) for way in ways]

    def test_no_read_tells_anything_of_a_hidden_stream(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "limited", OPERATE, **MINE))
        admin = with_key(world, make_key(world, "admin-2", ADMIN))
        refused, shown = 0, set()
        for rule in rules(world.app):
            # Events do not end; they have tests of their own below.
            if rule.method != "GET" or rule.role is None or rule.path.endswith("/events"):
                continue
            for path, parameters in self.asked(rule.path):
                answer = client.get(path, params=parameters)
                text = answer.text
                assert not any(canary in text for canary in CANARIES), (name_of(rule), parameters)
                if "theirs" in text:
                    # Then exactly what is said of one that does not exist, to somebody who may see everything.
                    assert answer.status_code == 404, (name_of(rule), parameters)
                    other = [(key, value.replace("theirs", "absent")) for key, value in parameters]
                    absent = admin.get(path.replace("theirs", "absent"), params=other)
                    assert (absent.status_code, absent.text) == (404, text.replace("theirs", "absent"))
                    refused += 1
                if "theirs" in admin.get(path, params=parameters).text:
                    shown.add(rule.path.removeprefix(PREFIX))
        assert refused >= 6
        # They are there to be seen, by those who may.
        assert shown >= {"/streams", "/streams/{stream_id}/timeline", "/alerts/rules", "/alerts/log", "/audit"}
        assert client.get(f"{PREFIX}/streams/mine/timeline").status_code == 200
        assert [stream["id"] for stream in client.get(f"{PREFIX}/streams").json()["streams"]] == ["mine"]

    def test_no_change_touches_a_hidden_stream(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "limited", OPERATE, **MINE))
        before = world.store.get("theirs"), RuleBook(world.store).rules()
        for rule in rules(world.app):
            if rule.method in ("GET", "HEAD", "WS") or not {"{stream_id}", "{rule_id}"} & set(rule.path.split("/")):
                continue
            for body in ({}, {"paused": True}, {"labels": {"site": "berlin"}}, {"enabled": False}):
                answer = client.request(rule.method, address(rule.path, "theirs"), json=body)
                if answer.status_code == 422 and answer.json()["error"]["message"].endswith("is unknown here"):
                    continue
                wanted = "stream_not_found" if "{stream_id}" in rule.path else "rule_not_found"
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, wanted), name_of(rule)
        assert (world.store.get("theirs"), RuleBook(world.store).rules()) == before

    def test_no_rule_is_made_for_a_hidden_stream_nor_tried_on_it(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "limited", OPERATE, **MINE))
        for target in ({"stream": "theirs"}, {"label": "site=paris"}, {"label": "all"}):
            rule = {"id": "new", "kind": "no_faces", **target}
            made = client.post(f"{PREFIX}/alerts/rules", json=rule)
            assert made.status_code in (403, 404), target
            tried = client.post(f"{PREFIX}/alerts/dry-run", json={"rule": rule})
            assert tried.status_code in (403, 404), target
            assert not any(canary in made.text + tried.text for canary in CANARIES if canary not in str(target))
        assert len(RuleBook(world.store).rules()) == 1

    def test_an_event_stream_names_no_hidden_stream(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "limited", VIEW, **MINE))
        answer = client.get(f"{PREFIX}/events", params={"stream": ["mine", "theirs"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "stream_not_found")
        caller = Caller("limited", VIEW, labels=("site=berlin",))
        for asked in (EventParameters(), EventParameters(label=["all"]), EventParameters(label=["site=paris"])):
            subscription_filter = subscribe(world.app.state.context, caller, asked)._subscription_filter
            assert not subscription_filter.selects(world.store.get("theirs"))

    def test_events_over_a_real_connection_hold_nothing_of_a_hidden_stream(self, world: ApiWorld) -> None:
        key = make_key(world, "limited", VIEW, **MINE)
        seen = b""
        with (
            ApiServer(world.app, "127.0.0.1", 0) as server,
            httpx.stream("GET", f"{server.url}{PREFIX}/events", headers={"authorization": f"Bearer {key}"}, timeout=20) as answer,
        ):
            assert answer.status_code == 200
            for chunk in answer.iter_raw():
                seen += chunk
                if b"event: point" in seen or b"event: state" in seen:
                    break
        assert b"mine" in seen
        assert b"theirs" not in seen
        assert not any(canary.encode() in seen for canary in CANARIES)

    def test_a_web_socket_of_a_hidden_stream_is_closed_as_one_that_is_not_there(self, world: ApiWorld) -> None:
        headers = {"authorization": f"Bearer {make_key(world, 'limited', OPERATE, **MINE)}"}
        for rule in rules(world.app):
            if rule.method == "WS" and "{stream_id}" in rule.path:
                hidden, absent = (
                    repr(socket_messages(world.app, address(rule.path, name), headers)) for name in ("theirs", "absent")
                )
                assert hidden.replace("theirs", "absent") == absent
                assert "stream_not_found" in hidden
                assert "ready" not in hidden

    def test_an_operator_adds_and_keeps_streams_within_its_scope(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "limited", OPERATE, streams=("lobby",), **MINE))
        outside = client.post(f"{PREFIX}/streams", json={"id": "yard", "url": "clip.mp4"})
        assert (outside.status_code, outside.json()["error"]["code"]) == (403, "not_allowed")
        assert "lobby, site=berlin" in outside.json()["error"]["message"]
        moved = client.patch(f"{PREFIX}/streams/mine", json={"labels": {"site": "paris"}})
        assert (moved.status_code, moved.json()["error"]["code"]) == (403, "not_allowed")
        assert world.store.get("mine").labels["site"] == "berlin"
        assert client.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 201
        with_label = {"id": "yard", "url": "clip.mp4", "labels": {"site": "berlin"}}
        assert client.post(f"{PREFIX}/streams", json=with_label).status_code == 201
        assert client.post(f"{PREFIX}/streams/lobby/pause").json()["paused"] is True
        assert client.delete(f"{PREFIX}/streams/yard").status_code == 204

    def test_metrics_say_something_of_all_streams(self, world: ApiWorld) -> None:
        limited = with_key(world, make_key(world, "limited", VIEW, **MINE))
        assert limited.get("/metrics").json()["error"]["code"] == "not_allowed"
        assert with_key(world, make_key(world, "prometheus", VIEW)).get("/metrics").status_code == 200

    def test_where_models_lie_is_shown_to_admins_alone(self, world: ApiWorld) -> None:
        sources = [
            with_key(world, make_key(world, f"{role}-1", role)).get(f"{PREFIX}/models").json()["models"][0]["source"]
            for role in (VIEW, ADMIN)
        ]
        assert sources == ["fer-large", "/srv/models/fer-large"]


class TestCaller:
    @pytest.mark.parametrize(
        ("limits", "seen"),
        [
            ({}, {"a", "b", "c"}),
            ({"streams": frozenset({"a"})}, {"a"}),
            ({"labels": ("site=x",)}, {"b"}),
            ({"labels": ("site",)}, {"b", "c"}),
            ({"labels": ("site=x", "site=y")}, {"b", "c"}),
            ({"streams": frozenset({"a"}), "labels": ("site=y",)}, {"a", "c"}),
            ({"streams": frozenset()}, set()),
            ({"labels": ()}, set()),
            ({"labels": ("site=",)}, set()),
        ],
    )
    def test_each_id_and_each_label_adds_to_what_is_seen(self, limits: dict[str, Any], seen: set[str]) -> None:
        specs = [
            StreamSpec(stream_id=name, url="synthetic://x", labels=labels)
            for name, labels in (("a", {}), ("b", {"site": "x"}), ("c", {"site": "y"}))
        ]
        caller = Caller("one", VIEW, **limits)
        assert {spec.stream_id for spec in specs if caller.may_see(spec)} == seen

    def test_roles_include_those_below(self) -> None:
        assert [[mine.includes(other) for other in (VIEW, OPERATE, ADMIN)] for mine in (VIEW, OPERATE, ADMIN)] == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]


def test_many_threads_may_ask_at_once(world: ApiWorld) -> None:
    key, wrong = make_key(world, "front", VIEW), []

    def ask() -> None:
        with with_key(world, key) as client:
            wrong.extend(status for _ in range(5) if (status := client.get(f"{PREFIX}/streams").status_code) != 200)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
