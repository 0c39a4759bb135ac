"""What the service writes, read by another user of the machine; and a disk that is full."""

import os
import stat
from pathlib import Path

import pytest

from moodline.services.runtime.embedded import own_data_dir
from moodline.shared.bus.kafka_settings import parse_url
from moodline.shared.errors import SettingsError, StoreUnavailableError
from moodline.shared.store import Retention, open_store
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.timeline.bucket import TIERS_S
from tests.support.api import ApiWorld

KEEP = Retention(dict.fromkeys(TIERS_S, 10**9))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _loose() -> object:
    former = os.umask(0o000)
    yield
    os.umask(former)


def test_nobody_else_reads_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with own_data_dir(data):
        assert mode(data) == 0o700
    data.chmod(0o755)
    with own_data_dir(data):
        assert mode(data) == 0o700


def test_nobody_else_reads_the_database_nor_its_log(tmp_path: Path) -> None:
    path = tmp_path / "shared" / "store.db"
    for _ in range(2):
        store = SqliteStore(f"sqlite:///{path}", KEEP)
        store.append_record("x", b"v", 10)
        for each in path.parent.iterdir():
            assert mode(each) == 0o600, each.name
        assert mode(path.parent) == 0o700
        store.close()
        path.chmod(0o644)


def test_a_full_disk_is_no_ready_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiWorld(tmp_path) as world:
        assert world.http.get("/readyz").status_code == 200
        usage = type("Usage", (), {"free": 1000})()
        monkeypatch.setattr("moodline.shared.store.sqlite_file.shutil.disk_usage", lambda _path: usage)
        world.clock.now += 10
        answer = world.http.get("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert "full" in answer.json()["error"]["message"]


def test_a_store_that_takes_no_writes_is_no_ready_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiWorld(tmp_path) as world:

        def refuse() -> None:
            raise StoreUnavailableError("attempt to write a readonly database")

        monkeypatch.setattr(world.store, "require_writable", refuse)
        assert world.http.get("/readyz").status_code == 503


def test_who_asks_often_whether_it_is_ready_makes_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiWorld(tmp_path) as world:
        asked = 0
        writable = world.store.require_writable

        def counted() -> None:
            nonlocal asked
            asked += 1
            writable()

        monkeypatch.setattr(world.store, "require_writable", counted)
        for _ in range(100):
            assert world.http.get("/readyz").status_code == 200
        assert asked == 1
        world.clock.now += 2
        assert world.http.get("/readyz").status_code == 200
        assert asked == 2


@pytest.mark.parametrize(
    "url", ["redis://localhost/0?x=1", "redis://localhost/0?socket_timeout=abc", "rediss://h/0?ssl_cert_reqs=maybe"]
)
def test_an_address_of_redis_with_what_is_unknown_is_told_as_such(url: str) -> None:
    with pytest.raises(SettingsError):
        open_store(url, KEEP)


@pytest.mark.parametrize("host", ["[::1", "::1]", "[v1.x", "[fe80::1%25eth0", "[", "h]["])
def test_an_address_of_kafka_with_half_a_bracket_is_told_as_such(host: str) -> None:
    with pytest.raises(SettingsError, match="kafka"):
        parse_url(f"kafka://{host}")
