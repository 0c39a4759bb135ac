"""API keys: made once, hashed at rest, checked on every request, exchanged for a cookie, limited in how often they ask."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from moodline.services.api import PREFIX
from moodline.services.auth.authenticator import SESSION_COOKIE, require_access
from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import KeyRecord, Keyring
from moodline.services.cli.app import app as command
from moodline.shared.errors import InvalidKeyError, KeyExistsError, SettingsError
from moodline.shared.settings import ApiSettings
from tests.support.access import make_key, with_key
from tests.support.api import NOW_US, ApiWorld

SAME_PAGE = {"origin": "http://localhost"}
DAY_US = 86_400_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=0)) as world:
        yield world


@pytest.fixture
def admin(world: ApiWorld) -> httpx.Client:
    return with_key(world, make_key(world, "admin", Role.ADMIN))


def status(client: httpx.Client, path: str = "/streams", **arguments: str) -> int:
    return client.get(f"{PREFIX}{path}", **arguments).status_code  # type: ignore[arg-type]


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


class TestKeys:
    def test_a_key_is_shown_once_and_listed_without_its_secret(self, world: ApiWorld, admin: httpx.Client) -> None:
        body = {"name": "front-desk", "role": "viewer", "labels": ["site=berlin"], "expires_at": "2027-05-01T00:00:00Z"}
        made = admin.post(f"{PREFIX}/keys", json=body)
        assert made.status_code == 201
        key = made.json()["key"]
        assert status(with_key(world, key)) == 200
        listed = {one["name"]: one for one in admin.get(f"{PREFIX}/keys").json()["keys"]}
        assert listed["front-desk"] == {
            **body,
            "streams": None,
            "prefix": key[:16],
            "created_at": "2026-05-01T12:00:00Z",
            "last_used": "2026-05-01T12:00:00Z",
        }
        assert key[17:] not in json.dumps(listed)

    def test_nothing_at_rest_gives_a_key_or_a_session_away(self, world: ApiWorld, admin: httpx.Client) -> None:
        key = make_key(world, "front-desk", Role.VIEWER)
        with with_key(world, key) as client:
            signed_in = client.post(f"{PREFIX}/session", json={"key": key})
        session = signed_in.cookies[SESSION_COOKIE]
        stored = b"".join(file.read_bytes() for file in world.directory.glob("store.db*"))
        assert b"front-desk" in stored
        for secret in (key, session):
            assert secret[-40:-20].encode() not in stored
            assert secret[-20:].encode() not in stored

    def test_a_name_is_taken_once(self, world: ApiWorld, admin: httpx.Client) -> None:
        again = admin.post(f"{PREFIX}/keys", json={"name": "admin", "role": "viewer"})
        assert (again.status_code, code(again)) == (409, "key_exists")
        with pytest.raises(KeyExistsError):
            make_key(world, "admin", Role.VIEWER)
        assert status(admin, "/keys") == 200

    def test_a_removed_key_is_worth_nothing_nor_is_it_when_the_name_comes_back(
        self, world: ApiWorld, admin: httpx.Client
    ) -> None:
        key = make_key(world, "front-desk", Role.VIEWER)
        client = with_key(world, key)
        browser = httpx.Client(transport=world.http._transport, base_url="http://localhost", headers=SAME_PAGE)
        assert browser.post(f"{PREFIX}/session", json={"key": key}).status_code == 200
        assert status(client) == status(browser) == 200
        assert admin.delete(f"{PREFIX}/keys/front-desk").status_code == 204
        assert status(client) == status(browser) == 401
        make_key(world, "front-desk", Role.VIEWER)
        assert status(client) == status(browser) == 401
        gone = admin.delete(f"{PREFIX}/keys/nobody")
        assert (gone.status_code, code(gone)) == (404, "key_not_found")

    def test_one_that_another_process_removed_is_refused_within_two_seconds(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "front-desk", Role.VIEWER))
        assert status(client) == 200
        Keyring(world.store, world.clock).remove("front-desk")
        world.clock.now += 2
        assert status(client) == 401

    def test_an_expired_key_is_refused(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "guest", Role.VIEWER, expires_at_us=NOW_US + DAY_US))
        assert status(client) == 200
        world.clock.now += 86_400
        assert status(client) == 401

    def test_nearly_the_key_is_not_the_key(self, world: ApiWorld) -> None:
        key = make_key(world, "front-desk", Role.VIEWER)
        other = make_key(world, "back-desk", Role.VIEWER)
        wrong = [key[:-1], f"{key}x", key.swapcase(), key[:17] + other[17:], "mdl_", "", "ä"]
        for each in wrong:
            answer = world.http.get(f"{PREFIX}/streams", headers={"authorization": f"Bearer {each}".encode()})
            assert (answer.status_code, code(answer)) == (401, "unauthorized"), each
        # One that is no key of ours says no more than one that was never made.
        assert key not in answer.text
        assert status(world.http, headers={"authorization": f"bearer  {key} "}) == 200  # type: ignore[arg-type]

    def test_last_use_is_noted_to_the_minute(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "front-desk", Role.VIEWER))
        seen = []
        for seconds in (0, 30, 31, 3600):
            world.clock.now += seconds
            assert status(client) == 200
            [info] = Keyring(world.store, world.clock).list_keys()
            assert info.last_used_us is not None
            seen.append((info.last_used_us - NOW_US) / 1e6)
        assert seen == [0, 0, 61, 3661]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "-x"}, "name"),
            ({"name": "a b"}, "name"),
            ({"streams": []}, "streams"),
            ({"streams": ["No Id"]}, "streams"),
            ({"labels": []}, "labels"),
            ({"labels": ["=x"]}, "labels"),
            ({"role": "admin", "labels": ["site"]}, "role"),
            ({"expires_at": "2026-05-01T12:00:00Z"}, "expires_at"),
        ],
    )
    def test_what_cannot_be_a_key(self, admin: httpx.Client, changes: dict[str, object], field: str) -> None:
        answer = admin.post(f"{PREFIX}/keys", json={"name": "front", "role": "viewer"} | changes)
        assert (answer.status_code, code(answer), answer.json()["error"]["field"]) == (422, "invalid_key", field)
        assert [one["name"] for one in admin.get(f"{PREFIX}/keys").json()["keys"]] == ["admin"]

    def test_a_role_that_is_none(self, admin: httpx.Client) -> None:
        answer = admin.post(f"{PREFIX}/keys", json={"name": "front", "role": "root"})
        assert (answer.status_code, code(answer), answer.json()["error"]["field"]) == (422, "invalid_request", "role")


class TestSessions:
    @pytest.fixture
    def browser(self, world: ApiWorld) -> httpx.Client:
        return httpx.Client(transport=world.http._transport, base_url="http://localhost", headers=SAME_PAGE)

    def sign_in(self, world: ApiWorld, browser: httpx.Client, role: Role = Role.OPERATOR) -> httpx.Response:
        return browser.post(f"{PREFIX}/session", json={"key": make_key(world, f"{role}-2", role)})

    def test_a_cookie_stands_for_the_key(self, world: ApiWorld, browser: httpx.Client) -> None:
        assert status(browser) == 401
        answer = self.sign_in(world, browser)
        assert answer.json() == {"name": "operator-2", "role": "operator", "streams": None, "labels": None, "open": False}
        assert status(browser) == 200
        assert browser.get(f"{PREFIX}/session").json() == answer.json()
        assert browser.post(f"{PREFIX}/streams", json={"id": "lobby", "url": "clip.mp4"}).status_code == 201
        assert status(browser, "/keys") == 403

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_scripts_and_other_sites_do_not_get_the_cookie(self, world: ApiWorld, scheme: str) -> None:
        browser = httpx.Client(transport=world.http._transport, base_url=f"{scheme}://localhost")
        cookie = self.sign_in(world, browser).headers["set-cookie"]
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert parts >= {"httponly", "samesite=strict", "path=/", "max-age=604800"}
        assert ("secure" in parts) is (scheme == "https")
        assert not any(part.startswith("domain") for part in parts)

    def test_the_cookie_of_a_visitor_does_not_serve_pages_of_other_origins(self, world: ApiWorld, browser: httpx.Client) -> None:
        self.sign_in(world, browser)
        assert status(browser, headers={"origin": "http://localhost:3000"}) == 401  # type: ignore[arg-type]
        changed = browser.post(f"{PREFIX}/streams", json={}, headers={"origin": "http://localhost:3000"})
        assert (changed.status_code, code(changed)) == (403, "forbidden")

    def test_signing_out_ends_it_also_for_who_kept_the_cookie(self, world: ApiWorld, browser: httpx.Client) -> None:
        self.sign_in(world, browser)
        kept = browser.cookies[SESSION_COOKIE]
        answer = browser.delete(f"{PREFIX}/session")
        assert answer.status_code == 204
        assert SESSION_COOKIE not in browser.cookies
        assert status(world.http, headers={"cookie": f"{SESSION_COOKIE}={kept}"}) == 401  # type: ignore[arg-type]
        assert browser.delete(f"{PREFIX}/session").status_code == 204

    def test_a_session_ends_by_itself(self, world: ApiWorld, browser: httpx.Client) -> None:
        self.sign_in(world, browser)
        # The client drops a cookie by its own clock; here the server's counts.
        cookie = {"cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
        world.clock.now += 7 * 86_400 - 1
        assert status(world.http, headers=cookie) == 200  # type: ignore[arg-type]
        world.clock.now += 3
        assert status(world.http, headers=cookie) == 401  # type: ignore[arg-type]
        self.sign_in(world, browser, Role.VIEWER)
        assert len(world.store.list_entries("sessions")) == 1

    def test_a_wrong_key_opens_none(self, world: ApiWorld, browser: httpx.Client) -> None:
        secret = "mdl_" + "0" * 12 + "_" + "s" * 43
        answer = browser.post(f"{PREFIX}/session", json={"key": secret})
        assert (answer.status_code, code(answer)) == (401, "unauthorized")
        assert "set-cookie" not in answer.headers
        too_long = browser.post(f"{PREFIX}/session", json={"key": secret * 9})
        assert (too_long.status_code, "sss" in too_long.text) == (422, False)

    def test_a_key_is_no_cookie_and_a_session_no_key(self, world: ApiWorld, browser: httpx.Client) -> None:
        session = self.sign_in(world, browser).cookies[SESSION_COOKIE]
        key = make_key(world, "front", Role.VIEWER)
        assert status(world.http, headers={"cookie": f"{SESSION_COOKIE}={key}"}) == 401  # type: ignore[arg-type]
        assert status(with_key(world, session)) == 401


class TestWhoNeedsAKey:
    def test_nobody_on_loopback_until_one_is_made(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path) as world:
            assert world.get("/session").json() == {
                "name": "local",
                "role": "admin",
                "streams": None,
                "labels": None,
                "open": True,
            }
            assert status(world.http, "/keys") == status(with_key(world, "nonsense")) == 200
            made = world.http.post(f"{PREFIX}/keys", json={"name": "admin", "role": "admin"}).json()
            assert status(world.http) == 401
            client = with_key(world, made["key"])
            assert status(client, "/keys") == 200
            assert client.delete(f"{PREFIX}/keys/admin").status_code == 204
            # Whoever removes the last key does not mean to let everybody in.
            assert status(world.http) == 401

    def test_a_key_made_by_another_process_closes_the_door_within_two_seconds(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path) as world:
            assert status(world.http) == 200
            make_key(world, "admin", Role.ADMIN)
            world.clock.now += 2
            assert status(world.http) == 401

    @pytest.mark.parametrize(
        ("host", "access", "wanted"), [("0.0.0.0", "auto", 401), ("127.0.0.1", "keys", 401), ("::", "open", 200)]
    )
    def test_beyond_loopback_everybody_unless_it_is_open_on_purpose(
        self, tmp_path: Path, host: str, access: str, wanted: int
    ) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(host=host, access=access)) as world:  # type: ignore[arg-type]
            assert status(world.http) == wanted
            assert world.http.get("/healthz").status_code == 200
            assert world.http.get("/readyz").status_code == 200

    @pytest.mark.parametrize(
        ("host", "access", "refused"),
        [
            ("0.0.0.0", "auto", True),
            ("192.168.1.5", "auto", True),
            ("camera.example", "keys", True),
            ("127.0.0.1", "keys", True),
            ("127.0.0.1", "auto", False),
            ("localhost", "auto", False),
            ("::1", "auto", False),
            ("0.0.0.0", "open", False),
        ],
    )
    def test_a_service_without_a_key_starts_only_where_it_may(
        self, world: ApiWorld, host: str, access: str, refused: bool
    ) -> None:
        settings = ApiSettings(host=host, access=access)  # type: ignore[arg-type]
        if refused:
            with pytest.raises(SettingsError, match="moodline keys add NAME --role admin"):
                require_access(world.store, settings, world.clock)
            make_key(world, "first", Role.ADMIN)
        require_access(world.store, settings, world.clock)


class TestLimits:
    def test_a_key_has_a_burst_and_then_its_rate(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(access="keys", rate_per_s=2, rate_burst=5)) as world:
            client, other = (with_key(world, make_key(world, name, Role.VIEWER)) for name in ("one", "two"))
            assert [status(client) for _ in range(6)] == [200] * 5 + [429]
            answer = client.get(f"{PREFIX}/streams")
            assert (code(answer), answer.headers["retry-after"]) == ("rate_limited", "1")
            assert status(other) == 200
            world.clock.now += 1
            assert [status(client) for _ in range(3)] == [200, 200, 429]
            world.clock.now += 1000
            assert [status(client) for _ in range(6)] == [200] * 5 + [429]

    def test_an_address_without_a_key_is_limited_too(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(host="0.0.0.0", rate_per_s=1, rate_burst=3)) as world:
            assert [status(world.http) for _ in range(4)] == [401, 401, 401, 429]
        (tmp_path / "open").mkdir()
        with ApiWorld(tmp_path / "open", api=ApiSettings(host="0.0.0.0", access="open", rate_per_s=1, rate_burst=3)) as world:
            assert [status(world.http) for _ in range(4)] == [200, 200, 200, 429]

    def test_whoever_owns_the_machine_is_not_limited(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(rate_per_s=1, rate_burst=1)) as world:
            assert [status(world.http) for _ in range(5)] == [200] * 5

    def test_unknown_keys_are_refused_without_looking_after_ten(self, world: ApiWorld) -> None:
        known = with_key(world, make_key(world, "front", Role.VIEWER))
        assert status(known) == 200
        guesses = [with_key(world, f"mdl_{number:012}_{'g' * 43}") for number in range(13)]
        assert [status(guess) for guess in guesses[:11]] == [401] * 10 + [429]
        refused = world.http.post(f"{PREFIX}/session", json={"key": "mdl_x"})
        assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (429, "rate_limited", "6")
        # Who was known before goes on from the same address.
        assert status(known) == 200
        world.clock.now += 6
        assert [status(guess) for guess in guesses[11:]] == [401, 429]

    def test_who_repeats_a_key_that_was_good_once_does_not_use_up_the_tries_of_others(self, world: ApiWorld) -> None:
        former = make_key(world, "former", Role.VIEWER)
        Keyring(world.store, world.clock).remove("former")
        assert [status(with_key(world, former)) for _ in range(30)] == [401] * 30
        assert status(with_key(world, make_key(world, "front", Role.VIEWER))) == 200


class TestCors:
    PAGE = "https://dash.example"

    def preflight(self, world: ApiWorld, origin: str) -> httpx.Response:
        headers = {"origin": origin, "access-control-request-method": "PATCH", "access-control-request-headers": "authorization"}
        return world.http.options(f"{PREFIX}/streams/lobby", headers=headers)

    def test_it_is_off(self, world: ApiWorld) -> None:
        client = with_key(world, make_key(world, "front", Role.OPERATOR))
        answer = client.get(f"{PREFIX}/streams", headers={"origin": self.PAGE})
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert self.preflight(world, self.PAGE).status_code == 405
        refused = client.post(f"{PREFIX}/streams", json={"id": "a", "url": "clip.mp4"}, headers={"origin": self.PAGE})
        assert (refused.status_code, code(refused)) == (403, "forbidden")

    def test_allowed_pages_bring_their_own_key_and_no_cookie(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(access="keys", cors_origins=f"{self.PAGE}/ , https://b.example")) as world:
            key = make_key(world, "front", Role.OPERATOR)
            client = with_key(world, key)
            preflight = self.preflight(world, self.PAGE)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == self.PAGE
            added = client.post(f"{PREFIX}/streams", json={"id": "a", "url": "clip.mp4"}, headers={"origin": self.PAGE})
            assert (added.status_code, added.headers["access-control-allow-origin"]) == (201, self.PAGE)
            assert "access-control-allow-credentials" not in added.headers
            signed_in = world.http.post(f"{PREFIX}/session", json={"key": key})
            cookie = {"cookie": f"{SESSION_COOKIE}={signed_in.cookies[SESSION_COOKIE]}", "origin": self.PAGE}
            world.http.cookies.clear()
            by_cookie = world.http.delete(f"{PREFIX}/streams/a", headers=cookie)
            assert (by_cookie.status_code, code(by_cookie)) == (401, "unauthorized")
            assert by_cookie.headers["access-control-allow-origin"] == self.PAGE

    def test_other_pages_are_refused_in_the_one_shape(self, tmp_path: Path) -> None:
        with ApiWorld(tmp_path, api=ApiSettings(cors_origins=self.PAGE)) as world:
            answer = self.preflight(world, "https://evil.example")
            assert (answer.status_code, code(answer)) == (403, "forbidden")
            assert "access-control-allow-origin" not in answer.headers


class TestCommand:
    @pytest.fixture(autouse=True)
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOODLINE_STORE_URL", f"sqlite:///{tmp_path}/cli.db")
        monkeypatch.setenv("COLUMNS", "200")

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(command, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def test_keys_are_made_listed_and_removed_without_a_service(self) -> None:
        key = self.run("keys", "add", "front", "--stream", "lobby", "--label", "site=berlin", "--days", "30").strip()
        self.run("keys", "add", "boss", "--role", "admin")
        boss, front = json.loads(self.run("keys", "ls", "--json"))["keys"]
        assert (boss["name"], boss["role"], boss["streams"], boss["expires_at"]) == ("boss", "admin", None, None)
        assert (front["streams"], front["labels"], front["prefix"]) == (["lobby"], ["site=berlin"], key[:16])
        shown = self.run("keys", "ls")
        assert "lobby, site=berlin" in shown
        assert key[17:] not in shown
        assert self.run("keys", "rm", "front") == "front is removed\n"
        assert "front" not in self.run("keys", "ls")
        changes = json.loads(self.run("audit", "--json"))["changes"]
        assert [(one["who"], one["what"], one["ids"]["name"]) for one in changes] == [
            ("command line", "DELETE /keys/{name}", "front"),
            ("command line", "POST /keys", "boss"),
            ("command line", "POST /keys", "front"),
        ]
        assert "POST /keys" in self.run("audit", "--limit", "2")

    def test_which_store_is_used_is_said_and_whether_it_is_new(self, tmp_path: Path) -> None:
        said = [CliRunner().invoke(command, ["keys", "ls", "--data-dir", str(tmp_path / "other")]).stderr for _ in range(2)]
        place = tmp_path / "other" / "moodline.db"
        assert said == [f"store: {place} (new: there was none)\n", f"store: {place}\n"]

    def test_mistakes_are_told(self) -> None:
        with pytest.raises(InvalidKeyError, match="letters, digits"):
            self.run("keys", "add", "no name")
        with pytest.raises(InvalidKeyError, match="admin"):
            self.run("keys", "add", "boss", "--role", "admin", "--stream", "lobby")


def test_a_record_shows_its_hash_and_no_key(world: ApiWorld) -> None:
    record, key = Keyring(world.store, world.clock).add(KeyRecord(name="front", role=Role.VIEWER, digest=""))
    assert key.startswith(f"{record.prefix}_")
    assert key[17:] not in repr(record)
    assert len(record.digest) == 64
