"""Registering, listing, reading, changing and deleting streams over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moodline.shared.streams import FailureReason, StreamState
from tests.support.api import NOW, NOW_US, ApiWorld, nobody, smiling


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world:
        yield world


def post(world: ApiWorld, **body: Any) -> httpx.Response:
    return world.http.post("/api/v1/streams", json=body)


def patch(world: ApiWorld, stream_id: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return world.http.patch(f"/api/v1/streams/{stream_id}", json=body, headers=headers or {})


NO_CAMERA = dict.fromkeys(("attempts", "next_attempt", "last_frame", "fps", "clock_offset_ms", "lost_packets"))


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    found: dict[str, Any] = body["error"]
    return found


# Register


@pytest.mark.parametrize(
    ("given", "recorded_at"),
    [
        (1777636800, NOW),
        (1777636800000, NOW),
        (1777636800.25, "2026-05-01T12:00:00.250000Z"),
        ("1777636800", NOW),
        ("now", NOW),
        ("now-1h", "2026-05-01T11:00:00Z"),
        ("-90s", "2026-05-01T11:58:30Z"),
        ("now-1d/d", "2026-04-30T00:00:00Z"),
    ],
)
def test_recordings_begin_at_any_form_of_time(world: ApiWorld, given: object, recorded_at: str) -> None:
    assert world.add(recorded_at=given)["recorded_at"] == recorded_at


def test_register_with_defaults(world: ApiWorld) -> None:
    answer = post(world, id="lobby", url="clip.mp4")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/streams/lobby"
    assert answer.headers["etag"] == '"1"'
    assert answer.json() == {
        "id": "lobby",
        "url": world.clip.as_uri(),
        "lane": "file",
        "transport": None,
        "tls_verify": None,
        "hint": "",
        "has_credentials": False,
        "sample_fps": "5",
        "max_side_px": 1280,
        "recorded_at": NOW,
        "labels": {},
        "paused": False,
        "preview": False,
        "attempt": 0,
        "created_at": NOW,
        "revision": 1,
        "status": {"state": "pending", "reason": None, "detail": "", "since": None} | NO_CAMERA,
        "video": None,
        "progress": {
            "frames": 0,
            "last_time": None,
            "position_s": 0.0,
            "duration_s": None,
            "percent": None,
            "complete": False,
        },
        "source": None,
    }
    assert world.http.get(answer.headers["location"]).json() == answer.json()


def test_register_with_everything(world: ApiWorld) -> None:
    answer = post(
        world,
        id="a.b_c-1",
        url=str(world.clip),
        sample_fps="30000/1001",
        max_side_px=64,
        recorded_at="2024-02-29T23:59:59.123456+01:00",
        labels={"site": "berlin", "x/y": ""},
        paused=True,
    ).json()
    assert answer["sample_fps"] == "30000/1001"
    assert answer["max_side_px"] == 64
    assert answer["recorded_at"] == "2024-02-29T22:59:59.123456Z"
    assert answer["labels"] == {"site": "berlin", "x/y": ""}
    assert answer["status"]["state"] == "paused"
    assert world.store.get("a.b_c-1").recorded_at_us == 1_709_247_599_123_456


def test_the_default_start_of_a_recording_is_a_whole_second(world: ApiWorld) -> None:
    world.clock.now += 0.75
    answer = post(world, id="lobby", url="clip.mp4").json()
    assert answer["recorded_at"] == NOW
    assert answer["created_at"] == "2026-05-01T12:00:00.750000Z"


@pytest.mark.parametrize("rate", ["5", "0.5", "30000/1001", "240", "all", 5, 0.5])
def test_sample_rates(world: ApiWorld, rate: object) -> None:
    assert post(world, id="lobby", url="clip.mp4", sample_fps=rate).json()["sample_fps"] == str(rate)


@pytest.mark.parametrize("rate", ["0", "-1", "240.1", "241", "5/0", "0/5", "1e2", "five", "", "5 ", "inf", "nan", "5/1/1", 1e-7])
def test_sample_rates_that_are_none(world: ApiWorld, rate: object) -> None:
    assert error(post(world, id="lobby", url="clip.mp4", sample_fps=rate), 422, "invalid_stream")["field"] == "sample_fps"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "-lobby"}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 64}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "lobby\n"}, "id"),
        ({"id": 5}, "id"),
        ({"url": ""}, "url"),
        ({"url": 5}, "url"),
        ({"sample_fps": True}, "sample_fps"),
        ({"max_side_px": 63}, "max_side_px"),
        ({"max_side_px": 8193}, "max_side_px"),
        ({"max_side_px": "many"}, "max_side_px"),
        ({"recorded_at": "yesterday"}, "recorded_at"),
        ({"recorded_at": "2026-05-01T12:00:00"}, "recorded_at"),
        ({"recorded_at": True}, "recorded_at"),
        ({"recorded_at": 1e300}, "recorded_at"),
        ({"recorded_at": -5}, "recorded_at"),
        ({"recorded_at": "now-900y"}, "recorded_at"),
        ({"recorded_at": "now+300y"}, "recorded_at"),
        ({"recorded_at": "20260501"}, "recorded_at"),
        ({"recorded_at": "1969-12-31T23:59:59Z"}, "recorded_at"),
        ({"recorded_at": "2200-01-01T00:00:00Z"}, "recorded_at"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"a b": "x"}}, "labels"),
        ({"labels": {"a": "x" * 256}}, "labels"),
        ({"labels": {"a": "x\n"}}, "labels"),
        ({"labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"paused": "perhaps"}, "paused"),
        ({"sampel_fps": "5"}, "sampel_fps"),
    ],
)
def test_definitions_that_are_refused(world: ApiWorld, fields: dict[str, Any], field: str) -> None:
    answer = post(world, **({"id": "lobby", "url": "clip.mp4"} | fields))
    assert error(answer, 422, "invalid_request")["field"] == field
    assert world.get("/streams").json()["streams"] == []


def test_what_is_missing_is_named(world: ApiWorld) -> None:
    found = error(post(world), 422, "invalid_request")
    assert found["message"] == "id: is required; url: is required"
    assert found["field"] == "id"


def test_a_file_outside_of_the_media_root_is_refused(world: ApiWorld) -> None:
    found = error(post(world, id="lobby", url="/etc/passwd"), 422, "invalid_stream")
    assert found["field"] == "url"
    assert "below the media root" in found["message"]


def test_credentials_are_refused_and_never_repeated(world: ApiWorld) -> None:
    answer = post(world, id="lobby", url="file://admin:hunter2@/clip.mp4")
    assert error(answer, 422, "invalid_stream")["field"] == "url"
    assert "hunter2" not in answer.text


def test_a_value_that_is_refused_is_never_repeated(world: ApiWorld) -> None:
    answer = post(world, id="lobby", url={"password": "hunter2"}, labels="hunter2")
    error(answer, 422, "invalid_request")
    assert "hunter2" not in answer.text


def test_an_id_is_taken_once(world: ApiWorld) -> None:
    world.add("lobby", labels={"first": "yes"})
    assert "lobby" in error(post(world, id="lobby", url="clip.mp4"), 409, "stream_exists")["message"]
    assert world.get("/streams/lobby").json()["labels"] == {"first": "yes"}


# List


def test_list_in_pages(world: ApiWorld) -> None:
    for number in range(7):
        world.add(f"cam-{number}")
    seen, cursor = [], None
    for _ in range(4):
        page = world.get("/streams", limit=2, **({"cursor": cursor} if cursor else {})).json()
        seen.append([stream["id"] for stream in page["streams"]])
        cursor = page["next_cursor"]
    assert seen == [["cam-0", "cam-1"], ["cam-2", "cam-3"], ["cam-4", "cam-5"], ["cam-6"]]
    assert cursor is None


def test_a_last_page_that_is_full_has_no_cursor(world: ApiWorld) -> None:
    world.add("a")
    world.add("b")
    assert world.get("/streams", limit=2).json()["next_cursor"] is None


def test_list_by_label(world: ApiWorld) -> None:
    world.add("a", labels={"site": "berlin", "floor": "1"})
    world.add("b", labels={"site": "berlin", "floor": "2"})
    world.add("c", labels={"site": "paris"})

    def listed(*labels: str) -> list[str]:
        return [stream["id"] for stream in world.get("/streams", label=labels).json()["streams"]]

    assert listed("site=berlin") == ["a", "b"]
    assert listed("site=berlin", "floor=2") == ["b"]
    assert listed("floor") == ["a", "b"]
    assert listed("site=") == []
    assert listed("absent") == []


def test_list_by_state_fills_pages(world: ApiWorld) -> None:
    for number in range(6):
        world.add(f"cam-{number}", paused=number % 2 == 0)
    page = world.get("/streams", state="paused", limit=2).json()
    assert [stream["id"] for stream in page["streams"]] == ["cam-0", "cam-2"]
    page = world.get("/streams", state="paused", limit=2, cursor=page["next_cursor"]).json()
    assert [stream["id"] for stream in page["streams"]] == ["cam-4"]
    assert page["next_cursor"] is None


@pytest.mark.parametrize(("parameter", "value"), [("limit", 0), ("limit", 501), ("limit", "x"), ("state", "bored")])
def test_list_parameters_that_are_refused(world: ApiWorld, parameter: str, value: object) -> None:
    assert error(world.get("/streams", **{parameter: value}), 422, "invalid_request")["field"] == parameter


# State and progress


def test_a_file_that_was_cut_and_damaged(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling()] * 6)
    world.set_state(
        "lobby",
        state=StreamState.ENDED,
        reason=FailureReason.TRUNCATED,
        detail="6.0 of 10.0 s; 5 frames are damaged",
        duration_us=10_000_000,
        played_us=6_000_000,
        width=640,
        height=360,
        codec="h264",
        source_fps="25",
        frames_decoded=148,
        frames_corrupt=5,
        frames_lost=2,
    )
    answer = world.get("/streams/lobby").json()
    assert (answer["status"]["state"], answer["status"]["reason"]) == ("ended", "truncated")
    assert answer["source"] == {
        "length_s": 10.0,
        "played_s": 6.0,
        "fps": "25",
        "width": 640,
        "height": 360,
        "codec": "h264",
        "decoded": 148,
        "corrupt": 5,
        "lost": 2,
        "reason": "truncated",
        "detail": "6.0 of 10.0 s; 5 frames are damaged",
    }
    assert world.get("/streams").json()["streams"][0]["source"] == answer["source"]


def test_a_playing_stream(world: ApiWorld) -> None:
    world.add("lobby")
    world.set_state(
        "lobby",
        state=StreamState.PLAYING,
        since_us=NOW_US + 1_500_000,
        duration_us=40_000_000,
        width=640,
        height=360,
        codec="h264",
        source_fps="30000/1001",
        frames_sent=60,
    )
    world.play("lobby", [smiling(), nobody()] * 5, final=False)
    answer = world.get("/streams/lobby").json()
    assert (
        answer["status"] == {"state": "playing", "reason": None, "detail": "", "since": "2026-05-01T12:00:01.500000Z"} | NO_CAMERA
    )
    assert answer["video"] == {"width": 640, "height": 360, "codec": "h264", "source_fps": "30000/1001"}
    assert answer["source"] is None, "it is not read to its end"
    assert answer["progress"] == {
        "frames": 50,
        "last_time": "2026-05-01T12:00:09.800000Z",
        "position_s": 9.8,
        "duration_s": 40.0,
        "percent": 24.5,
        "complete": False,
    }


def test_a_complete_stream_does_not_count_its_end_as_a_frame(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling()] * 10)
    answer = world.get("/streams/lobby").json()
    assert answer["status"]["state"] == "ended"
    assert answer["progress"]["frames"] == 50
    assert answer["progress"]["percent"] == 100.0
    assert answer["progress"]["complete"] is True


def test_a_hundred_percent_is_said_only_of_a_complete_timeline(world: ApiWorld) -> None:
    world.add("lobby")
    world.set_state("lobby", state=StreamState.ENDED, duration_us=5_000_000)
    world.play("lobby", [smiling()] * 10, final=False)
    answer = world.get("/streams/lobby").json()
    assert answer["status"]["state"] == "playing", "the reader is done, the timeline is not"
    assert answer["progress"]["percent"] == 99.9


def test_a_failed_stream_says_why(world: ApiWorld) -> None:
    world.add("lobby")
    world.set_state("lobby", state=StreamState.FAILED, reason=FailureReason.CODEC, detail="no decoder for it", since_us=NOW_US)
    assert (
        world.get("/streams/lobby").json()["status"]
        == {
            "state": "failed",
            "reason": "codec",
            "detail": "no decoder for it",
            "since": NOW,
        }
        | NO_CAMERA
    )


def test_an_ended_stream_stays_ended_when_paused(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling()])
    assert world.http.post("/api/v1/streams/lobby/pause").json()["status"]["state"] == "ended"


# Pause and resume


def test_pause_and_resume(world: ApiWorld) -> None:
    world.add("lobby")
    world.set_state("lobby", state=StreamState.PLAYING)
    paused = world.http.post("/api/v1/streams/lobby/pause")
    assert (paused.status_code, paused.json()["status"]["state"], paused.json()["revision"]) == (200, "paused", 2)
    assert world.store.get("lobby").paused
    again = world.http.post("/api/v1/streams/lobby/pause").json()
    assert again["revision"] == 2, "nothing changed"
    world.set_state("lobby", state=StreamState.PAUSED)
    resumed = world.http.post("/api/v1/streams/lobby/resume").json()
    assert (resumed["status"]["state"], resumed["attempt"]) == ("pending", 0)
    assert not world.store.get("lobby").paused


@pytest.mark.parametrize("paused_first", [False, True])
def test_resume_tries_a_failed_stream_again(world: ApiWorld, paused_first: bool) -> None:
    world.add("lobby")
    world.set_state("lobby", state=StreamState.FAILED, reason=FailureReason.NOT_FOUND)
    if paused_first:
        world.http.post("/api/v1/streams/lobby/pause")
    resumed = world.http.post("/api/v1/streams/lobby/resume").json()
    assert (resumed["attempt"], resumed["status"]["state"], resumed["status"]["reason"]) == (1, "pending", None)
    assert world.http.post("/api/v1/streams/lobby/resume").json()["attempt"] == 1, "the second attempt has not failed yet"
    world.set_state("lobby", state=StreamState.FAILED, attempt=1)
    assert world.http.post("/api/v1/streams/lobby/resume").json()["attempt"] == 2


def test_pause_survives_a_race(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("lobby")
    replace, raced = world.store.replace, []

    def replace_after_somebody_else(spec: Any) -> Any:
        if not raced:
            raced.append(replace(world.store.get("lobby")))
        return replace(spec)

    monkeypatch.setattr(world.store, "replace", replace_after_somebody_else)
    answer = world.http.post("/api/v1/streams/lobby/pause").json()
    assert (answer["paused"], answer["revision"]) == (True, 3)


# Change


def test_labels_change_at_any_time(world: ApiWorld) -> None:
    world.add("lobby", labels={"old": "1"})
    world.play("lobby", [smiling()])
    answer = patch(world, "lobby", labels={"new": "2"})
    assert (answer.status_code, answer.json()["labels"], answer.json()["revision"]) == (200, {"new": "2"}, 2)
    assert answer.headers["etag"] == '"2"'


def test_what_is_left_out_or_null_stays(world: ApiWorld) -> None:
    before = world.add("lobby", labels={"a": "b"}, sample_fps="2")
    answer = patch(world, "lobby", labels=None, sample_fps=None, url=None)
    assert answer.json() == before, "and no new revision"


def test_the_definition_changes_before_the_first_frame(world: ApiWorld) -> None:
    world.add("lobby")
    (world.media / "other.mp4").write_bytes(b"x")
    answer = patch(
        world, "lobby", url="other.mp4", sample_fps="all", max_side_px=640, recorded_at="2020-01-01T00:00:00Z", paused=True
    ).json()
    assert answer["url"] == (world.media / "other.mp4").as_uri()
    assert (answer["sample_fps"], answer["max_side_px"], answer["recorded_at"]) == ("all", 640, "2020-01-01T00:00:00Z")
    assert answer["paused"] is True


def test_a_failed_stream_is_tried_again_when_its_address_changes(world: ApiWorld) -> None:
    world.add("lobby")
    (world.media / "other.mp4").write_bytes(b"x")
    world.set_state("lobby", state=StreamState.FAILED, reason=FailureReason.CORRUPT)
    assert patch(world, "lobby", labels={"a": "b"}).json()["attempt"] == 0
    answer = patch(world, "lobby", url="other.mp4").json()
    assert (answer["attempt"], answer["status"]["state"]) == (1, "pending")


@pytest.mark.parametrize(
    "change",
    [{"url": "other.mp4"}, {"sample_fps": "all"}, {"max_side_px": 640}, {"recorded_at": "2020-01-01T00:00:00Z"}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("started", ["in the timeline", "on the way", "being opened"])
def test_the_definition_cannot_change_any_more(world: ApiWorld, change: dict[str, Any], started: str) -> None:
    before = world.add("lobby")
    (world.media / "other.mp4").write_bytes(b"x")
    if started == "in the timeline":
        world.play("lobby", [smiling()], final=False)
    elif started == "on the way":
        world.set_state("lobby", state=StreamState.PAUSED, frames_sent=3)
    else:
        world.set_state("lobby", state=StreamState.CONNECTING)
    found = error(patch(world, "lobby", **change), 409, "stream_started")
    assert "delete the stream and add it again" in found["message"]
    assert world.get("/streams/lobby").json()["revision"] == before["revision"]


def test_the_same_definition_again_is_no_change(world: ApiWorld) -> None:
    world.add("lobby")
    world.play("lobby", [smiling()], final=False)
    assert patch(world, "lobby", sample_fps="5", url="clip.mp4").json()["revision"] == 1


@pytest.mark.parametrize("by", ["field", "header", "weak header"])
def test_a_change_may_name_its_revision(world: ApiWorld, by: str) -> None:
    world.add("lobby")

    def change(revision: int, value: str) -> httpx.Response:
        if by == "field":
            return patch(world, "lobby", labels={"a": value}, revision=revision)
        prefix = "W/" if by == "weak header" else ""
        return patch(world, "lobby", {"If-Match": f'{prefix}"{revision}"'}, labels={"a": value})

    assert change(1, "1").json()["revision"] == 2
    found = error(change(1, "2"), *((409, "revision_conflict") if by == "field" else (412, "precondition_failed")))
    assert "revision 2" in found["message"]
    assert world.get("/streams/lobby").json()["labels"] == {"a": "1"}
    assert change(2, "2").json()["labels"] == {"a": "2"}


def test_a_race_for_a_named_revision_is_lost(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("lobby")
    replace = world.store.replace

    def replace_after_somebody_else(spec: Any) -> Any:
        replace(world.store.get("lobby"))
        return replace(spec)

    monkeypatch.setattr(world.store, "replace", replace_after_somebody_else)
    error(patch(world, "lobby", labels={"a": "b"}, revision=1), 409, "revision_conflict")


def test_if_match_star_and_nonsense(world: ApiWorld) -> None:
    world.add("lobby")
    assert patch(world, "lobby", {"If-Match": "*"}, labels={"a": "b"}).status_code == 200
    assert error(patch(world, "lobby", {"If-Match": "three"}, labels={}), 422, "invalid_stream")["field"] == "If-Match"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"sample_fps": "0"}, "invalid_stream", "sample_fps"),
        ({"url": "/etc/passwd"}, "invalid_stream", "url"),
        ({"max_side_px": 1}, "invalid_request", "max_side_px"),
        ({"id": "other"}, "invalid_request", "id"),
        ({"revision": 0}, "invalid_request", "revision"),
    ],
)
def test_changes_that_are_refused(world: ApiWorld, body: dict[str, Any], code: str, field: str) -> None:
    world.add("lobby")
    assert error(patch(world, "lobby", **body), 422, code)["field"] == field


# Delete


def test_delete_purges_everything(world: ApiWorld) -> None:
    world.add("lobby")
    world.add("other")
    for stream_id in ("lobby", "other"):
        world.play(stream_id, [smiling(), nobody()])
    answer = world.http.delete("/api/v1/streams/lobby")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("", "/timeline", "/summary", "/tracks", "/tracks/1"):
        error(world.get(f"/streams/lobby{path}"), 404, "stream_not_found")
    world.add("lobby")
    assert world.get("/streams/lobby/timeline").json()["points"] == []
    assert world.get("/streams/lobby/tracks").json()["tracks"] == []
    assert world.get("/streams/lobby").json()["progress"]["frames"] == 0
    assert len(world.get("/streams/other/timeline").json()["points"]) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/timeline"),
        ("GET", "/timeline?from=-1h"),
        ("GET", "/summary"),
        ("GET", "/tracks"),
        ("GET", "/tracks/1"),
    ],
)
@pytest.mark.parametrize("stream_id", ["absent", "Not%20an%20id", "..%2f", "%00"])
def test_a_stream_that_is_not_there(world: ApiWorld, method: str, path: str, stream_id: str) -> None:
    answer = world.http.request(method, f"/api/v1/streams/{stream_id}{path}", json={} if method == "PATCH" else None)
    code = answer.json()["error"]["code"]
    assert (answer.status_code, code) in {(404, "stream_not_found"), (404, "not_found")}
    assert code == "stream_not_found" or "%2f" in stream_id


def test_a_standstill_and_a_skewed_clock_show_in_the_state(world: ApiWorld) -> None:
    world.add("lobby")
    world.set_state("lobby", state=StreamState.STALLED, detail="they wait for the detector", host_clock_ahead_ms=3200)
    status = world.get("/streams/lobby").json()["status"]
    assert (status["state"], status["detail"]) == ("stalled", "they wait for the detector")
    world.set_state("lobby", state=StreamState.PLAYING, host_clock_ahead_ms=-3200)
    detail = world.get("/streams/lobby").json()["status"]["detail"]
    assert detail == "the clock of the host that reads this stream is 3.2 s behind the store's; set both by NTP"
    world.set_state("lobby", state=StreamState.PLAYING, host_clock_ahead_ms=400)
    assert world.get("/streams/lobby").json()["status"]["detail"] == ""
