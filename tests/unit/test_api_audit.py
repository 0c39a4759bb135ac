"""The audit log says who changed what, and nothing that was secret in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from moodline.services.api import PREFIX
from moodline.services.auth.audit import AUDIT_KEEP, Change, append_change, read_changes
from moodline.services.auth.callers import Role
from moodline.shared.settings import ApiSettings
from tests.support.access import make_key, with_key
from tests.support.api import NOW_US, ApiWorld

SECRET = "hunter2"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        yield world


def logged(world: ApiWorld) -> list[tuple[str, str, str, dict[str, str]]]:
    changes = [change for _, change in reversed(read_changes(world.store, 1000))]
    return [(change.who, change.role.value, change.what, change.ids) for change in changes]


def test_every_change_is_there_in_order_and_no_secret_is(world: ApiWorld) -> None:
    operator = with_key(world, make_key(world, "front", Role.OPERATOR))
    admin = with_key(world, make_key(world, "boss", Role.ADMIN))
    lobby = {"stream_id": "lobby"}
    camera = {"id": "lobby", "url": f"rtsp://user:{SECRET}@192.0.2.1/stream", "labels": {"note": SECRET}}
    assert operator.post(f"{PREFIX}/streams", json=camera).status_code == 201
    assert operator.patch(f"{PREFIX}/streams/lobby", json={"labels": {"site": SECRET}}).status_code == 200
    assert operator.post(f"{PREFIX}/streams/lobby/pause").status_code == 200
    assert operator.post(f"{PREFIX}/streams/lobby/resume").status_code == 200
    assert admin.put(f"{PREFIX}/models/active", json={"name": "fer-large"}).status_code == 200
    made = admin.post(f"{PREFIX}/keys", json={"name": "guest", "role": "viewer"}).json()
    assert admin.delete(f"{PREFIX}/keys/guest").status_code == 204
    assert operator.delete(f"{PREFIX}/streams/lobby").status_code == 204
    assert logged(world) == [
        ("front", "operator", "POST /streams", {"id": "lobby"}),
        ("front", "operator", "PATCH /streams/{stream_id}", lobby),
        ("front", "operator", "POST /streams/{stream_id}/pause", lobby),
        ("front", "operator", "POST /streams/{stream_id}/resume", lobby),
        ("boss", "admin", "PUT /models/active", {"name": "fer-large"}),
        ("boss", "admin", "POST /keys", {"name": "guest"}),
        ("boss", "admin", "DELETE /keys/{name}", {"name": "guest"}),
        ("front", "operator", "DELETE /streams/{stream_id}", lobby),
    ]
    text = admin.get(f"{PREFIX}/audit").text
    assert SECRET not in text
    assert made["key"][17:] not in text


def test_what_failed_or_only_read_is_no_change(world: ApiWorld) -> None:
    viewer, operator = (with_key(world, make_key(world, role, role)) for role in (Role.VIEWER, Role.OPERATOR))
    assert viewer.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 403
    assert operator.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "missing.mp4"}).status_code == 422
    assert operator.delete(f"{PREFIX}/streams/lobby").status_code == 404
    assert operator.get(f"{PREFIX}/streams").status_code == 200
    assert logged(world) == []


def test_it_is_read_newest_first_in_pages_by_admins(world: ApiWorld) -> None:
    for number in range(5):
        append_change(world.store, Change(NOW_US + number, "front", Role.OPERATOR, "POST /streams", {"id": f"s{number}"}))
    admin = with_key(world, make_key(world, "boss", Role.ADMIN))
    first = admin.get(f"{PREFIX}/audit", params={"limit": 3}).json()
    assert [one["ids"]["id"] for one in first["changes"]] == ["s4", "s3", "s2"]
    assert first["changes"][0] == {
        "number": 5,
        "at": "2026-05-01T12:00:00.000004Z",
        "who": "front",
        "role": "operator",
        "what": "POST /streams",
        "ids": {"id": "s4"},
    }
    rest = admin.get(f"{PREFIX}/audit", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert ([one["number"] for one in rest["changes"]], rest["next_cursor"]) == ([2, 1], None)
    assert with_key(world, make_key(world, "front", Role.OPERATOR)).get(f"{PREFIX}/audit").status_code == 403


def test_a_change_without_a_key_is_that_of_the_machine(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        world.add("lobby")
        assert logged(world) == [("local", "admin", "POST /streams", {"id": "lobby"})]


def test_only_the_newest_changes_are_kept(world: ApiWorld) -> None:
    assert AUDIT_KEEP >= 1000
    world.store.append_record("audit", b"{}", 1)
    number = append_change(world.store, Change(NOW_US, "front", Role.OPERATOR, "POST /streams", {}))
    assert number == 2
