"""What somebody who has shown no key can make this service do: as good as nothing, on every route and socket there is."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.types import Message

from moodline.services.api import PREFIX
from moodline.services.api.admission import JSON_BODY_BYTES, OPEN_BODY_BYTES, Entrance, entrances
from moodline.services.auth.callers import Role
from moodline.shared.settings import ApiSettings, QuotasSettings
from tests.support.access import make_key, rules, with_key
from tests.support.api import ApiWorld

MEBIBYTE: Final = 1024 * 1024


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        yield world


def table(world: ApiWorld) -> list[Entrance]:
    return entrances(world.app.routes)


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


async def _send(world: ApiWorld, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, int]:
    """Ask with a body in pieces; return the status, and how many bytes of the body the application took."""
    taken, status = 0, 0

    async def receive() -> Message:
        nonlocal taken
        piece = body[taken : taken + 65_536]
        taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": taken < len(body)}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "client": ("192.0.2.1", 40_000),
        "server": ("127.0.0.1", 8000),
    }
    await asyncio.wait_for(world.app(scope, receive, send), 30)
    return status, taken


def test_the_table_holds_every_route_and_every_one_of_them_is_bounded(world: ApiWorld) -> None:
    names = {entrance.name for entrance in table(world)}
    assert {f"{rule.method} {rule.path}" for rule in rules(world.app) if rule.path.startswith(PREFIX)} <= names
    for entrance in table(world):
        wanted = {0, OPEN_BODY_BYTES} if entrance.role is None else {0, JSON_BODY_BYTES}
        assert entrance.body_bytes in wanted, entrance.name


def test_without_a_key_no_route_takes_a_mebibyte_nor_much_time(world: ApiWorld) -> None:
    """A body of unknown fields: each is one more problem that validation has to tell."""
    body = json.dumps({f"f{number}": 1 for number in range(76_000)}).encode()
    assert 900_000 < len(body) < MEBIBYTE
    headers = {"content-type": "application/json"}
    asyncio.run(_send(world, "GET", "/openapi.json", b"", {}))  # made once for each process
    for entrance in table(world):
        method, _, path = entrance.name.partition(" ")
        if method == "WS":
            continue
        started = time.process_time()
        status, taken = asyncio.run(_send(world, method, filled(path), body, headers))
        spent_s = time.process_time() - started
        assert taken <= (0 if entrance.role else 131_072), entrance.name
        assert spent_s < 0.25, (entrance.name, spent_s)
        assert status in ((401,) if entrance.role else (200, 204, 401, 404, 408, 413, 422, 429)), entrance.name


def test_with_a_key_a_body_of_many_fields_is_refused_before_each_of_them_is_a_problem(world: ApiWorld) -> None:
    client = with_key(world, make_key(world, "front", Role.ADMIN))
    many = {f"f{number}": 1 for number in range(4_000)}
    for entrance in table(world):
        method, _, path = entrance.name.partition(" ")
        if entrance.body_bytes == JSON_BODY_BYTES:
            answer = client.request(method, filled(path), json=many)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large"), entrance.name


ODD_BODIES: Final = {
    "nested lists": b"[" * 60_000,
    "nested lists that end": b"[" * 60_000 + b"]" * 60_000,
    "nested objects": b'{"a":' * 1300 + b"1" + b"}" * 1300,
    "a number of 100,000 digits": b'{"id":' + b"9" * 100_000 + b"}",
    "a number of 4,000 digits": b'{"id":"a","max_side_px":' + b"9" * 4000 + b"}",
    "an exponent": b'{"id":"a","max_side_px":1e400,"sample_fps":1e400}',
    "no number": b'{"id":"a","max_side_px":NaN,"sample_fps":Infinity}',
    "a name twice": b'{"id":"a","id":"b","name":"a","name":"b"}',
    "half a surrogate": b'{"id":"\\ud800","name":"\\ud800","url":"\\udfff","key":"\\ud800"}',
    "no text": b'{"id":"\xff\xfe"}',
    "a null byte": b'{"id":"a\\u0000","name":"\\u0000","url":"clip.mp4\\u0000","role":"viewer"}',
    "compressed": gzip.compress(b'{"id":"' + b"a" * 10_000_000 + b'"}'),
    "nothing": b"",
    "null": b"null",
}


@pytest.mark.parametrize("what", ODD_BODIES)
def test_odd_bodies_are_refused_soon_on_every_route_that_takes_one(world: ApiWorld, what: str) -> None:
    client = with_key(world, make_key(world, "front", Role.ADMIN))
    headers = {"content-type": "application/json"} | ({"content-encoding": "gzip"} if what == "compressed" else {})
    for entrance in table(world):
        method, _, path = entrance.name.partition(" ")
        if not entrance.body_bytes:
            continue
        started = time.process_time()
        answer = client.request(method, filled(path), content=ODD_BODIES[what], headers=headers)
        assert answer.status_code < 500, (entrance.name, answer.text[:200])
        assert len(answer.content) < 20_000, (entrance.name, len(answer.content))
        assert time.process_time() - started < 0.5, entrance.name


HALF_A_PAIR: Final = [
    *(b'"\\ud800"', b'"\\uDfFf\\ud800"', b'"\xed\xa0\x80"'),
    '"\ud800"'.encode("utf-16", "surrogatepass"),
]


@pytest.mark.parametrize("text", HALF_A_PAIR)
def test_no_field_takes_half_of_a_surrogate_pair(world: ApiWorld, text: bytes) -> None:
    """Fields that hide their value took it, and the service broke on it, for nobody's request too."""
    wide = text.startswith(b"\xff\xfe")

    def body(fields: str) -> bytes:
        if wide:
            return fields.encode("utf-16").replace('"?"'.encode("utf-16-le"), text.removeprefix(b"\xff\xfe"))
        return fields.encode().replace(b'"?"', text)

    client = with_key(world, make_key(world, "front", Role.ADMIN))
    json = {"content-type": "application/json"}
    for path, fields in (
        ("session", '{"key":"?"}'),
        ("streams", '{"id":"a","url":"rtsp://192.0.2.7/","username":"?","password":"?"}'),
        ("alerts/rules", '{"id":"a","kind":"offline","label":"a","webhook_url":"?"}'),
        ("keys", '{"name":"a","role":"viewer","labels":["?"]}'),
    ):
        answer = client.post(f"{PREFIX}/{path}", content=body(fields), headers=json)
        assert answer.status_code == 422, (path, answer.text)
        assert answer.json()["error"]["code"] == "invalid_request"
    whole = client.post(f"{PREFIX}/session", content=b'{"key":"\\ud83d\\ude00"}', headers=json)
    assert whole.status_code == 401


@pytest.mark.parametrize(
    "target",
    [
        "/streams?" + "&".join(f"label=k{number}=v" for number in range(1200)),
        "/streams?label=" + "x" * 15_000,
        "/streams/" + "x" * 15_000,
        "/streams/" + "%2e%2e%2f" * 1500,
        "/streams/a/timeline?from=" + "9" * 10_000,
        "/streams/a/timeline?from=-inf&to=nan&resolution=1e400&max_points=" + "9" * 5000,
        "/streams?limit=" + "9" * 5000 + "&cursor=" + "A" * 9000,
        "/streams/%00/timeline",
        "/streams/%ff%fe",
        "/audit?limit=-1&before=" + "9" * 400,
    ],
)
def test_long_and_odd_addresses_are_answered_soon(world: ApiWorld, target: str) -> None:
    client = with_key(world, make_key(world, "front", Role.ADMIN))
    started = time.process_time()
    answer = client.get(PREFIX + target)
    assert answer.status_code < 500, answer.text[:200]
    assert len(answer.content) < 40_000
    assert time.process_time() - started < 0.5


def test_a_key_with_as_many_limits_as_it_may_have_is_no_such_body(world: ApiWorld) -> None:
    client = with_key(world, make_key(world, "front", Role.ADMIN))
    body = {
        "name": "wide",
        "role": "viewer",
        "streams": [f"{'s' * 60}{number:03}" for number in range(200)],
        "labels": [f"key{number}={'v' * 255}" for number in range(200)],
    }
    assert client.post(f"{PREFIX}/keys", json=body).status_code == 201


def test_signing_in_takes_a_kibibyte(world: ApiWorld) -> None:
    key = make_key(world, "front", Role.VIEWER)
    assert world.http.post(f"{PREFIX}/session", json={"key": key}).status_code == 200
    refused = world.http.post(f"{PREFIX}/session", content=b'{"key": "' + b"x" * 2000 + b'"}')
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")


def test_a_body_that_drips_is_let_go(world: ApiWorld) -> None:
    async def ask() -> int:
        status = 0

        async def receive() -> Message:
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": f"{PREFIX}/session",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "client": ("192.0.2.1", 1),
        }
        await asyncio.wait_for(world.app(scope, receive, send), 60)
        return status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moodline.services.api.admission.JSON_BODY_TIMEOUT_S", 0.5)
        assert asyncio.run(ask()) == 408


def test_a_cookie_that_was_never_given_out_makes_nobody_be_looked_up_again(world: ApiWorld) -> None:
    authenticator = world.app.state.context.authenticator
    client = with_key(world, make_key(world, "front", Role.VIEWER))
    assert client.get(f"{PREFIX}/session").status_code == 200
    known = authenticator._known
    assert known
    for cookie in ("x", "mds_" + "A" * 43):
        assert world.http.delete(f"{PREFIX}/session", headers={"cookie": f"moodline_session={cookie}"}).status_code == 204
    assert authenticator._known is known


def test_one_key_cannot_hold_all_places(tmp_path: Path) -> None:
    overrides = {"quotas": QuotasSettings(requests_per_key=2)}
    with ApiWorld(tmp_path, api=ApiSettings(access="keys"), overrides=overrides) as world:
        concurrency = world.app.state.context.concurrency
        greedy, other = (with_key(world, make_key(world, name, Role.VIEWER)) for name in ("greedy", "other"))
        with concurrency.hold("requests of key greedy", 2), concurrency.hold("requests of key greedy", 2):
            answer = greedy.get(f"{PREFIX}/streams")
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_busy")
            assert other.get(f"{PREFIX}/streams").status_code == 200
        assert greedy.get(f"{PREFIX}/streams").status_code == 200
