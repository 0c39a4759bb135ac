"""Alert rules over HTTP: who may, what comes back, and that secrets do not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from moodline.services.alerts.records import STATES
from moodline.services.alerts.service import AlertService
from moodline.shared.camera_url import CameraSecret
from moodline.shared.messages import StreamClass
from moodline.shared.settings import AlertsSettings
from moodline.shared.streams import StreamSpec
from tests.support.alerts import StubReceiver
from tests.support.api import NOW, NOW_US, ApiWorld, smiling

RULE: dict[str, Any] = {"id": "glad", "stream": "hall", "kind": "share", "emotion": "happy", "threshold": 0.7} | {
    "for_s": 5,
    "window_s": 1,
    "min_faces": 5,
}
HOOK = "https://hooks.example.org/services/T0/token?key=secret"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, overrides={"alerts": AlertsSettings()}) as world:
        labels = {"site": "berlin"}
        known: dict[str, Any] = {"labels": labels, "created_at_us": NOW_US}
        world.store.add(StreamSpec(stream_id="hall", url="rtsp://192.0.2.7/1", lane=StreamClass.LIVE, **known))
        world.add("clip", labels={"site": "paris"})
        yield world


def make(world: ApiWorld, **fields: Any) -> httpx.Response:
    return world.http.post("/api/v1/alerts/rules", json=RULE | fields)


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["field"]


def test_a_rule_is_made_read_changed_and_removed(world: ApiWorld) -> None:
    made = make(world, note="call the desk")
    assert made.status_code == 201
    body = made.json()
    assert made.headers["location"] == "/api/v1/alerts/rules/glad"
    assert made.headers["etag"] == f'"{body["revision"]}"'
    assert (body["clear_threshold"], body["clear_for_s"], body["quiet_s"], body["direction"]) == (0.7, 5, 300, "over")
    assert world.get("/alerts/rules/glad").json() == body
    assert world.get("/alerts/rules").json() == {"rules": [body]}
    headers = {"if-match": made.headers["etag"]}
    changed = world.http.patch("/api/v1/alerts/rules/glad", json={"threshold": 0.8}, headers=headers)
    assert (changed.json()["threshold"], changed.json()["note"]) == (0.8, "call the desk")
    stale = world.http.patch("/api/v1/alerts/rules/glad", json={"threshold": 0.9}, headers=headers)
    assert problem(stale)[:2] == (412, "precondition_failed")
    assert problem(world.http.delete("/api/v1/alerts/rules/glad", headers=headers))[:2] == (412, "precondition_failed")
    assert world.http.delete("/api/v1/alerts/rules/glad").status_code == 204
    assert problem(world.get("/alerts/rules/glad"))[:2] == (404, "rule_not_found")
    assert problem(world.http.delete("/api/v1/alerts/rules/glad"))[:2] == (404, "rule_not_found")


def test_a_change_that_changes_nothing_keeps_the_revision(world: ApiWorld) -> None:
    revision = make(world).json()["revision"]
    assert world.http.patch("/api/v1/alerts/rules/glad", json={"threshold": 0.7}).json()["revision"] == revision


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": "nowhere"}, (404, "stream_not_found", None)),
        ({"label": "site"}, (422, "invalid_rule", "stream")),
        ({"emotion": "bored"}, (422, "invalid_rule", "emotion")),
        ({"threshold": None}, (422, "invalid_query", "threshold")),
        ({"threshold": 7}, (422, "invalid_rule", "threshold")),
        ({"for_s": 0}, (422, "invalid_rule", "for_s")),
        ({"id": "No Name"}, (422, "invalid_request", "id")),
        ({"webhook_url": "ftp://example.org"}, (422, "invalid_rule", "webhook_url")),
        ({"webhook_url": "http://127.0.0.1/x"}, (422, "invalid_rule", "webhook_url")),
        ({"webhook_url": "http://169.254.169.254/latest"}, (422, "invalid_rule", "webhook_url")),
        ({"webhook_url": "http://[::ffff:127.0.0.1]/"}, (422, "invalid_rule", "webhook_url")),
        ({"webhook_url": "https://u:p@example.org/"}, (422, "invalid_rule", "webhook_url")),
    ],
)
def test_what_cannot_be_a_rule_is_refused(world: ApiWorld, fields: dict[str, Any], expected: tuple[int, str, str | None]) -> None:
    answer = make(world, **fields)
    assert problem(answer) == expected
    assert world.get("/alerts/rules").json() == {"rules": []}


def test_an_id_is_given_once(world: ApiWorld) -> None:
    make(world)
    assert problem(make(world))[:2] == (409, "rule_exists")


def test_a_webhooks_secret_is_shown_once_and_its_url_never(world: ApiWorld) -> None:
    made = make(world, webhook_url=HOOK).json()
    assert made["webhook"] == "https://hooks.example.org/***"
    secret = made["webhook_secret"]
    assert len(secret) > 40
    read = [world.get("/alerts/rules/glad").text, world.get("/alerts/rules").text, world.get("/audit").text]
    kept = world.store.get_entry("alert-rules", "glad")
    assert kept is not None
    for said in (*read, kept.value.decode("latin-1")):
        assert secret not in said
        assert "token" not in said.replace("webhook_secret", "")
    same = world.http.patch("/api/v1/alerts/rules/glad", json={"webhook_url": HOOK + "&more=1"}).json()
    assert same["webhook_secret"] is None, "the same receiver keeps its secret"
    other = world.http.patch("/api/v1/alerts/rules/glad", json={"webhook_url": "https://example.net/x"}).json()
    assert other["webhook_secret"] not in (None, secret), "another host gets another secret"
    renewed = world.http.patch("/api/v1/alerts/rules/glad", json={"new_secret": True}).json()
    assert renewed["webhook_secret"] not in (None, secret, other["webhook_secret"])
    gone = world.http.patch("/api/v1/alerts/rules/glad", json={"webhook_url": ""}).json()
    assert (gone["webhook"], gone["webhook_secret"]) == (None, None)


def test_a_secret_sealed_for_a_rule_opens_for_no_other(world: ApiWorld) -> None:
    make(world, webhook_url=HOOK)
    context = world.app.state.context
    sealed = context.sealer.seal("alert-rule:glad", CameraSecret(password="x"))
    with pytest.raises(Exception, match="another stream"):
        context.sealer.open("alert-rule:sad", sealed)


def run_rules(world: ApiWorld, seconds: int) -> StubReceiver:
    receiver = StubReceiver()
    service = AlertService(world.store, world.settings, world.metrics, world.clock, sender=receiver)
    service.step()
    world.play("hall", [smiling(final=False)] * seconds, final=False)
    world.clock.now += seconds + 6
    service.step()
    service.deliver()
    return receiver


def test_what_fires_is_listed_logged_and_delivered(world: ApiWorld) -> None:
    make(world, webhook_url=HOOK)
    assert world.get("/alerts").json() == {"firing": []}
    receiver = run_rules(world, 20)
    [firing] = world.get("/alerts").json()["firing"]
    assert (firing["rule"], firing["stream"], firing["since"], firing["at"]) == ("glad", "hall", NOW, "2026-05-01T12:00:05Z")
    [event] = world.get("/alerts/log").json()["events"]
    sent = msgspec.json.decode(receiver.got[0][2])
    assert sent.pop("text").startswith("hall: happy leads 100% of 5 faces since 12:00:00 UTC, over")
    assert sent == event
    assert receiver.got[0][0] == HOOK
    [delivery] = world.get("/alerts/deliveries").json()["deliveries"]
    assert (delivery["event"], delivery["outcome"], delivery["attempt"]) == (event["id"], "delivered", 1)
    assert len(world.store.list_entries(STATES)) == 1


def test_the_log_is_read_in_pages_and_by_rule_and_stream(world: ApiWorld) -> None:
    for name in ("a", "b", "c"):
        make(world, id=name)
    run_rules(world, 20)
    first = world.get("/alerts/log", limit=2).json()
    second = world.get("/alerts/log", limit=2, cursor=first["next_cursor"]).json()
    assert sorted(event["rule"] for event in first["events"] + second["events"]) == ["a", "b", "c"]
    assert second["next_cursor"] is None
    assert [event["rule"] for event in world.get("/alerts/log", rule="b").json()["events"]] == ["b"]
    assert world.get("/alerts/log", stream="clip").json()["events"] == []


def test_a_dry_run_changes_nothing_and_says_what_would_have_been(world: ApiWorld) -> None:
    world.play("hall", [*[smiling()] * 8, *[smiling(share=0.2)] * 8])
    body = {"rule": RULE, "from": NOW, "to": "2026-05-01T12:00:16Z"}
    said = world.http.post("/api/v1/alerts/dry-run", json=body).json()
    assert (said["streams"], said["fired"], said["told"]) == (["hall"], 1, 1)
    assert [(event["kind"], event["at"][-3:], event["written"]) for event in said["events"]] == [
        ("firing", "05Z", None),
        ("resolved", "13Z", None),
    ]
    assert world.store.list_entries(STATES) == []
    make(world)
    assert world.http.post("/api/v1/alerts/dry-run", json={"rule_id": "glad"}).json()["fired"] == 1
    wrong_ones = [({}, "invalid_query"), ({"rule_id": "no"}, "rule_not_found"), ({"rule_id": "glad", "to": NOW}, "invalid_query")]
    for wrong, expected in wrong_ones:
        assert problem(world.http.post("/api/v1/alerts/dry-run", json=wrong))[1] == expected


def test_a_file_is_judged_as_it_is_read(world: ApiWorld) -> None:
    make(world, stream="clip")
    service = AlertService(world.store, world.settings, world.metrics, world.clock, sender=StubReceiver())
    service.step()
    world.play("clip", [smiling()] * 10)
    service.step()
    events = world.get("/alerts/log").json()["events"]
    assert [(event["kind"], event["reason"]) for event in events] == [("resolved", "no_data"), ("firing", "condition")]
    assert world.get("/alerts").json() == {"firing": []}
