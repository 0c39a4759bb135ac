"""The client can do what the API can: every route, every parameter, every field."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from moodline import ApiError, Client, RuleOptions, StreamChanges, StreamOptions, answers
from moodline.answers import Answer
from tests.support.api import ApiWorld

CALLS: Final[dict[str, Callable[[Client, Path], Any]]] = {
    "activate_model": lambda client, _: client.activate_model("x"),
    "add_key": lambda client, _: client.add_key("x", "viewer", streams="a", labels="b", expires_at="2027-01-01T00:00:00Z"),
    "add_rule": lambda client, _: client.add_rule("x", "offline", stream="a"),
    "add_stream": lambda client, _: client.add_stream("x", "clip.mp4"),
    "audit": lambda client, _: list(client.audit()),
    "change_rule": lambda client, _: client.change_rule("x", revision=1, new_secret=True),
    "change_stream": lambda client, _: client.change_stream("x", revision=1, paused=True),
    "classify": lambda client, path: client.classify(path, b"x"),
    "compare": lambda client, _: client.compare("a", labels="b", group_by="c", start="-1h", end="now", max_points=9),
    "delete_stream": lambda client, _: client.delete_stream("x"),
    "dry_run": lambda client, _: client.dry_run("x", start="-1h", end="now"),
    "events": lambda client, _: list(client.events(streams="a", labels="b", resolution="10s", faces=True, last_event_id="x")),
    "get_rule": lambda client, _: client.get_rule("x"),
    "get_stream": lambda client, _: client.get_stream("x"),
    "health": lambda client, _: client.health(),
    "list_alerts": lambda client, _: list(client.list_alerts(rule="a", stream="b")),
    "list_deliveries": lambda client, _: list(client.list_deliveries()),
    "list_faces": lambda client, _: list(client.list_faces("x", start="-1h", end="now")),
    "list_firing": lambda client, _: client.list_firing(),
    "list_keys": lambda client, _: client.list_keys(),
    "list_models": lambda client, _: client.list_models(),
    "list_rules": lambda client, _: client.list_rules(),
    "list_streams": lambda client, _: list(client.list_streams(labels="a", state="live")),
    "list_tracks": lambda client, _: list(client.list_tracks("x", start="-1h", end="now")),
    "metrics": lambda client, _: client.metrics(),
    "pause_stream": lambda client, _: client.pause_stream("x"),
    "push_frame": lambda client, _: client.push_frame("x", b"x", captured_at=answers_time()),
    "ready": lambda client, _: client.ready(),
    "remove_key": lambda client, _: client.remove_key("x"),
    "remove_rule": lambda client, _: client.remove_rule("x", revision=1),
    "resume_stream": lambda client, _: client.resume_stream("x"),
    "snapshot": lambda client, _: client.snapshot("x", boxes=True),
    "summary": lambda client, _: client.summary("x", start="-1h", end="now"),
    "timeline": lambda client, _: client.timeline("x", start="-1h", end="now", resolution="1s", max_points=9),
    "timeline_csv": lambda client, _: client.timeline_csv("x"),
    "track_timeline": lambda client, _: client.track_timeline("x", 1, start="-1h", end="now", resolution="1s", max_points=9),
    "upload": lambda client, path: client.upload(
        path, stream_id="x", labels="a=b", recorded_at="2026-05-01T12:00:00Z", sample_fps=5
    ),
    "watch": lambda client, _: list(client.watch("x", boxes=True)),
    "whoami": lambda client, _: client.whoami(),
}
"""One call of each method that asks for something else than the others do."""

BUILT_ON_OTHERS: Final = {"close", "faces_frame", "push_frames", "timeline_frame", "wait_until_ended", "wait_until_live"}

ROUTES_WITHOUT_METHOD: Final = {
    ("post", "/api/v1/session"): "gives browsers a cookie; the client sends its key",
    ("delete", "/api/v1/session"): "takes that cookie away",
    ("post", "/api/v1/cameras/test"): "the page and `moodline camera probe` do it",
}
PARAMETERS_WITHOUT_ARGUMENT: Final = {
    ("get", "/api/v1/streams"): {"cursor"},  # of the next page
    ("get", "/api/v1/audit"): {"cursor"},
    ("get", "/api/v1/alerts/log"): {"cursor"},
    ("get", "/api/v1/alerts/deliveries"): {"cursor"},
    ("get", "/api/v1/events"): {"last_event_id"},  # goes as a header
    ("patch", "/api/v1/streams/{stream_id}"): {"if-match"},  # goes in the body
    ("patch", "/api/v1/alerts/rules/{rule_id}"): {"if-match"},
    ("post", "/api/v1/streams/{stream_id}/pause"): {"if-match"},  # `change_stream` with a revision does the same
    ("post", "/api/v1/streams/{stream_id}/resume"): {"if-match"},
    ("delete", "/api/v1/streams/{stream_id}"): {"if-match"},
    ("get", "/api/v1/compare"): {"format"},  # other formats: a frame's business
    ("get", "/api/v1/streams/{stream_id}/faces"): {"cursor", "format"},
    ("get", "/api/v1/streams/{stream_id}/tracks"): {"cursor", "format"},
    ("get", "/api/v1/streams/{stream_id}/tracks/{track}"): {"format"},
}

NAMES: Final = {
    "Alert": "EventAnswer",
    "AlertPage": "EventPage",
    "Caller": "CallerAnswer",
    "Change": "ChangeAnswer",
    "Classified": "ClassifyAnswer",
    "ComparedPoint": "ComparePoint",
    "Comparison": "CompareDocument",
    "Delivery": "DeliveryAnswer",
    "DryRun": "DryRunAnswer",
    "FacePage": "FacesPage",
    "Firing": "FiringAnswer",
    "Key": "KeyAnswer",
    "Model": "ModelAnswer",
    "Models": "ModelPage",
    "NewKey": "NewKeyAnswer",
    "Picture": "PictureAnswer",
    "PictureFace": "FaceAnswer",
    "Point": "PointDocument",
    "Progress": "ProgressAnswer",
    "Pushed": "PushAnswer",
    "Refusal": "RefusalAnswer",
    "Rule": "RuleAnswer",
    "Series": "SeriesDocument",
    "Source": "SourceDocument",
    "Statistics": "WindowStatistics",
    "Stream": "StreamAnswer",
    "Summary": "SummaryDocument",
    "Timeline": "TimelineDocument",
    "Track": "TrackDocument",
    "TrackPoint": "TrackPointDocument",
    "TrackTimeline": "TrackTimelineDocument",
    "Upload": "UploadAnswer",
}
"""Structs of the client whose schema has another name."""
OWN_STRUCTS: Final = {"Answer", "PushTotals"}
OWN_FIELDS: Final = {"Ready": {"reason"}}
"""What the client makes of an error answer."""
NO_ANSWERS: Final = {"ErrorAnswer", "ErrorDetail", "Health", "CameraTestAnswer", "CameraTestStep"}


def answers_time() -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with ApiWorld(tmp_path_factory.mktemp("api")) as world:
        yield world.app.openapi()


def route_of(document: dict[str, Any], request: httpx.Request) -> tuple[str, str]:
    """Return verb and path of the route that a request asks; one without parameters comes first."""
    found = [
        path
        for path, verbs in sorted(document["paths"].items(), key=lambda item: item[0].count("{"))
        if request.method.lower() in verbs and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path)
    ]
    assert found, f"the API has no {request.method} {request.url.path}"
    return request.method.lower(), found[0]


def ask(call: Callable[[Client, Path], Any], path: Path) -> httpx.Request:
    """Return the request that a call makes."""
    asked: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(418, json={"error": {"code": "teapot", "message": "no"}})

    with Client("http://localhost", transport=httpx.MockTransport(refuse)) as client, pytest.raises(ApiError):
        call(client, path)
    assert len(asked) == 1
    return asked[0]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Return, for every route that the client asks, which parameters it sends."""
    path = tmp_path_factory.mktemp("upload") / "clip.mp4"
    path.write_bytes(b"x")
    sent: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in CALLS.values():
        request = ask(call, path)
        sent[route_of(document, request)] |= {*request.url.params.keys(), *request.headers.keys()}
    return sent


def test_every_method_is_called_here() -> None:
    methods = {name for name in dir(Client) if not name.startswith("_")}
    assert methods == {*CALLS, *BUILT_ON_OTHERS}


def test_every_route_has_a_method(document: dict[str, Any], asked: dict[tuple[str, str], set[str]]) -> None:
    routes = {(verb, path) for path, verbs in document["paths"].items() for verb in verbs}
    assert routes - asked.keys() == ROUTES_WITHOUT_METHOD.keys()


def test_every_parameter_can_be_given(document: dict[str, Any], asked: dict[tuple[str, str], set[str]]) -> None:
    for (verb, path), sent in asked.items():
        parameters = document["paths"][path][verb].get("parameters", [])
        known = {parameter["name"].lower() for parameter in parameters if parameter["in"] != "path"}
        assert known - sent == PARAMETERS_WITHOUT_ARGUMENT.get((verb, path), set()), (verb, path)


@pytest.mark.parametrize(
    ("options", "schema", "by_name"),
    [
        (StreamOptions, "NewStream", {"id", "url"}),
        (StreamChanges, "StreamChange", {"revision"}),
        (RuleOptions, "NewRule", {"id", "kind", "stream", "label"}),
        (RuleOptions, "RuleChange", {"new_secret", "revision"}),
    ],
)
def test_every_field_can_be_given(document: dict[str, Any], options: Any, schema: str, by_name: set[str]) -> None:
    fields = document["components"]["schemas"][schema]["properties"].keys()
    assert options.__annotations__.keys() | by_name == set(fields)


def test_every_field_of_every_answer_is_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    structs = {name: getattr(answers, name) for name in answers.__all__ if name not in OWN_STRUCTS}
    for name, struct in structs.items():
        if not (isinstance(struct, type) and issubclass(struct, Answer)):
            continue
        fields = {field.encode_name for field in msgspec.structs.fields(struct)} - OWN_FIELDS.get(name, set())
        assert fields == set(schemas[NAMES.get(name, name)]["properties"]), name


def test_every_answer_has_a_struct(document: dict[str, Any]) -> None:
    schemas: dict[str, Any] = document["components"]["schemas"]
    given = {
        reference.rpartition("/")[2]
        for verbs in document["paths"].values()
        for operation in verbs.values()
        for answer in operation["responses"].values()
        for reference in re.findall(r"#/components/schemas/\w+", str(answer))
    }
    known = {NAMES.get(name, name) for name in answers.__all__}
    assert given & schemas.keys() - known == NO_ANSWERS & given
