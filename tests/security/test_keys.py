"""Neighbours of a good key: those who guess, those behind the same proxy, those who hold another key."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moodline.services.api import PREFIX
from moodline.services.auth.audit import read_changes
from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import KeyRecord
from moodline.shared.errors import InvalidKeyError, SettingsError
from moodline.shared.settings import ApiSettings, load_settings
from tests.support.access import make_key, with_key
from tests.support.api import ApiWorld
from tests.support.clocks import StubClock


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        yield world


FOREIGN_HOSTS = (
    *("attacker.example", "attacker.example:8000", "localhost.attacker.example", "api.attacker.example", "ATTACKER.EXAMPLE"),
    *("xn--lcalhost-9za", "attacker.example.", "127.0.0.1.attacker.example", "127.0.0.1.nip.io", "[::1].attacker.example"),
    *("attacker.example#localhost", "attacker.example/localhost", "localhost@attacker.example", "localhost, attacker.example"),
    *("[localhost", "localhost\\attacker.example", "attacker.example:localhost", "0x7f.1", "127.1", "2130706433"),
)


class WallAhead(StubClock):
    """A clock that somebody sets, while time goes on as it does."""

    ahead_s = 0.0

    def now_s(self) -> float:
        return self.now + self.ahead_s


def guess(world: ApiWorld, number: int, **headers: str) -> httpx.Response:
    key = f"mdl_{number:012x}_{'A' * 43}"
    return world.http.get(f"{PREFIX}/streams", headers={"authorization": f"Bearer {key}", **headers})


class TestGuessing:
    def test_unknown_keys_of_an_address_refuse_no_good_one(self, world: ApiWorld) -> None:
        victims = [with_key(world, make_key(world, f"victim-{number}", Role.VIEWER)) for number in range(5)]
        answers = [guess(world, number).status_code for number in range(40)]
        assert answers.count(401) == 10
        assert answers.count(429) == 30
        for _ in range(3):
            assert all(victim.get(f"{PREFIX}/streams").status_code == 200 for victim in victims)
            world.clock.now += 3  # so that each is looked up again
            guess(world, int(world.clock.now))

    def test_sessions_are_not_refused_either(self, world: ApiWorld) -> None:
        key = make_key(world, "victim", Role.VIEWER)
        for number in range(40):
            guess(world, number)
        signed_in = world.http.post(f"{PREFIX}/session", json={"key": key})
        assert signed_in.status_code == 200
        cookie = {"cookie": f"moodline_session={signed_in.cookies['moodline_session']}"}
        assert world.http.get(f"{PREFIX}/streams", headers=cookie).status_code == 200

    def test_a_key_that_was_refused_while_our_clock_was_ahead_is_good_again(self, tmp_path: Path) -> None:
        clock = WallAhead()
        with ApiWorld(tmp_path, api=ApiSettings(access="keys"), clock=clock) as world:
            limited = KeyRecord(name="front", role=Role.VIEWER, digest="", expires_at_us=int((clock.now + 80_000) * 1e6))
            client = with_key(world, world.app.state.context.authenticator.keyring.add(limited)[1])
            for clock.ahead_s, expected in ((0, 200), (90_000, 401), (0, 200), (400 * 86_400, 401), (-90_000, 200)):
                clock.now += 20
                assert client.get(f"{PREFIX}/streams").status_code == expected, clock.ahead_s

    def test_a_key_that_is_asked_with_again_and_again_is_one_guess(self, world: ApiWorld) -> None:
        for _ in range(40):
            assert guess(world, 7).status_code == 401
            world.clock.now += 11  # so that it is looked up again

    def test_behind_a_trusted_proxy_each_visitor_has_an_address(self, world: ApiWorld) -> None:
        for number in range(40):
            guess(world, number, **{"x-forwarded-for": "203.0.113.9"})
        assert guess(world, 1000, **{"x-forwarded-for": "203.0.113.9"}).status_code == 429
        assert guess(world, 1001, **{"x-forwarded-for": "203.0.113.10"}).status_code == 401

    def test_nobody_else_is_believed_what_his_address_is(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(access="keys", trusted_proxies="")) as world:
            answers = [guess(world, number, **{"x-forwarded-for": f"203.0.113.{number}"}).status_code for number in range(40)]
            assert answers.count(429) == 30

    @pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/33", "*", "10.0.0.1/8"])
    def test_what_is_no_network_is_told_at_the_start(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOODLINE_API_TRUSTED_PROXIES", text)
        with pytest.raises(SettingsError, match="MOODLINE_API_TRUSTED_PROXIES"):
            load_settings()


class TestOpenAccess:
    @pytest.mark.parametrize("settings", [ApiSettings(access="open", host="0.0.0.0"), ApiSettings(access="open"), ApiSettings()])
    def test_an_open_service_answers_only_under_names_that_were_set(self, tmp_path: Path, settings: ApiSettings) -> None:
        settings = settings.model_copy(update={"hosts": "api, moodline.lan", "url": "http://cams.example:8000"})
        with ApiWorld(tmp_path, api=settings) as world:
            for host in (
                "localhost:8000",
                "127.0.0.1:8000",
                "[::1]:8000",
                "192.168.1.7",
                "api:8000",
                "MOODLINE.lan",
                "cams.example",
            ):
                assert world.http.get(f"{PREFIX}/keys", headers={"host": host}).status_code == 200, host
            for host in FOREIGN_HOSTS:
                answer = world.http.post(f"{PREFIX}/keys", json={"name": "x", "role": "admin"}, headers={"host": host})
                assert answer.status_code == 403, host
                assert "MOODLINE_API_HOSTS" in answer.json()["error"]["message"]

    def test_where_a_key_is_asked_for_any_name_will_do(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "front", Role.VIEWER))
        assert client.get(f"{PREFIX}/streams", headers={"host": "moodline.example"}).status_code == 200

    def test_after_the_last_key_nobody_is_let_in_without_one(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path) as world:
            assert world.http.get(f"{PREFIX}/keys").status_code == 200
            admin = with_key(world, make_key(world, "admin", Role.ADMIN))
            world.clock.now += 10
            assert admin.delete(f"{PREFIX}/keys/admin").status_code == 204
            for _ in range(2):
                assert world.http.get(f"{PREFIX}/keys").status_code == 401
                world.clock.now += 10

    @pytest.mark.parametrize(
        "header", ["x-forwarded-for", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto", "X-Forwarded-Host"]
    )
    def test_what_comes_through_a_proxy_is_not_from_this_machine(self, tmp_path: Path, header: str) -> None:
        with ApiWorld(tmp_path) as world:
            assert world.http.get(f"{PREFIX}/keys").status_code == 200
            assert world.http.get(f"{PREFIX}/keys", headers={header: "203.0.113.9"}).status_code == 401


class TestCookies:
    @pytest.mark.parametrize(("peer", "scheme", "secure"), [("127.0.0.1", "https", True), ("127.0.0.1", "http", False)])
    def test_behind_tls_the_cookie_is_for_tls_alone(self, world: ApiWorld, peer: str, scheme: str, secure: bool) -> None:
        key = make_key(world, "front", Role.VIEWER)
        headers = {"x-forwarded-proto": scheme, "x-forwarded-for": peer}
        answer = world.http.post(f"{PREFIX}/session", json={"key": key}, headers=headers)
        assert ("secure" in answer.headers["set-cookie"].lower()) is secure

    def test_a_key_has_a_bounded_number_of_browsers(self, world: ApiWorld) -> None:
        key = make_key(world, "front", Role.VIEWER)
        sessions = []
        for _ in range(40):
            world.clock.now += 1
            sessions.append(world.http.post(f"{PREFIX}/session", json={"key": key}).cookies["moodline_session"])
            world.http.cookies.clear()
        assert len(world.store.list_entries("sessions")) == 32
        works = [
            world.http.get(f"{PREFIX}/streams", headers={"cookie": f"moodline_session={session}"}).status_code
            for session in sessions
        ]
        assert works == [401] * 8 + [200] * 32


class TestAudit:
    def what(self, world: ApiWorld) -> list[tuple[str, str]]:
        return [(change.who, change.what) for _, change in read_changes(world.store, 500)]

    def test_what_changes_nothing_is_not_recorded(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "front", Role.OPERATOR))
        assert client.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 201
        rule = {"id": "calm", "stream": "lobby", "kind": "no_faces"}
        assert client.post(f"{PREFIX}/alerts/rules", json=rule).status_code == 201
        before = self.what(world)
        for _ in range(5):
            assert client.post(f"{PREFIX}/streams/lobby/resume").status_code == 200
            assert client.patch(f"{PREFIX}/streams/lobby", json={}).status_code == 200
            assert client.patch(f"{PREFIX}/alerts/rules/calm", json={}).status_code == 200
        assert self.what(world) == before
        assert client.post(f"{PREFIX}/streams/lobby/pause").status_code == 200
        for _ in range(5):
            assert client.post(f"{PREFIX}/streams/lobby/pause").status_code == 200
        assert self.what(world) == [("front", "POST /streams/{stream_id}/pause"), *before]

    def test_no_key_pushes_out_what_others_did(self, world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("moodline.services.auth.audit.AUDIT_KEEP", 60)
        monkeypatch.setattr("moodline.services.auth.audit._CHANGES_BURST", 20)
        with ApiWorld(_made(world.directory / "second"), api=ApiSettings(access="keys")) as small:
            victim, busy = (with_key(small, make_key(small, name, Role.OPERATOR)) for name in ("victim", "busy"))
            assert victim.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 201
            for _ in range(60):
                assert busy.post(f"{PREFIX}/streams/lobby/pause").status_code == 200
                assert busy.post(f"{PREFIX}/streams/lobby/resume").status_code == 200
            assert ("victim", "POST /streams") in self.what(small)
            small.clock.now += 60
            assert busy.post(f"{PREFIX}/streams/lobby/pause").status_code == 200
            assert read_changes(small.store, 1)[0][1].ids["left_out_before"] == "100"

    def test_signing_in_and_out_and_refused_keys_are_recorded(self, world: ApiWorld) -> None:
        key = make_key(world, "front", Role.VIEWER)
        for _ in range(5):
            cookie = world.http.post(f"{PREFIX}/session", json={"key": key}).cookies["moodline_session"]
            world.http.cookies.clear()
        assert world.http.delete(f"{PREFIX}/session", headers={"cookie": f"moodline_session={cookie}"}).status_code == 204
        for number in range(500):
            guess(world, number)
        assert self.what(world) == [("anonymous", "key refused"), ("front", "DELETE /session"), ("front", "POST /session")]
        world.clock.now += 61
        guess(world, 1000)
        newest = read_changes(world.store, 1)[0][1]
        assert (newest.ids["times"], newest.role) == ("500", None)
        assert newest.ids["address"] == "127.0.0.1"

    def test_strangers_of_very_many_addresses_fill_neither_the_audit_log_nor_the_process_log(
        self, world: ApiWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "moodline.audit")
        for number in range(400):
            guess(world, number, **{"x-forwarded-for": f"2001:db8:{number:x}::1"})
        assert 0 < len(self.what(world)) <= 101
        assert 0 < len([record for record in caplog.records if record.message == "audit.entry"]) <= 101
        assert (world.metrics.registry.get_sample_value("moodline_keys_refused_total") or 0) == 400

    def test_old_entries_go(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(audit_keep_s=86_400)) as world:
            world.add("first")
            world.clock.now += 2 * 86_400
            for _ in range(130):
                world.http.post(f"{PREFIX}/streams/first/pause")
                world.http.post(f"{PREFIX}/streams/first/resume")
            assert all(change.what != "POST /streams" for _, change in read_changes(world.store, 500))

    @pytest.mark.parametrize("name", ["local", "Local", "anonymous", "system"])
    def test_no_key_has_the_name_of_those_who_have_none(self, world: ApiWorld, name: str) -> None:
        with pytest.raises(InvalidKeyError):
            world.app.state.context.authenticator.keyring.add(KeyRecord(name=name, role=Role.ADMIN, digest=""))


def _made(path: Path) -> Path:
    path.mkdir()
    return path
