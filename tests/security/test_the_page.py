"""The page and its web socket, asked by somebody who has not signed in, and by somebody who has and means harm."""

import base64
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import KeyRecord, Keyring
from moodline.shared.clock import SystemClock
from moodline.shared.store import Retention
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.timeline.bucket import TIERS_S
from tests.support.servers import die_with_parent, free_port
from tests.support.service import MOODLINE

pytestmark = pytest.mark.timeout(180)

SOCKET: Final = "/_nicegui_ws/socket.io/?EIO=4"
MEBIBYTE: Final = 1024 * 1024


class Api:
    """`moodline api` in a process of its own, which asks for a key."""

    def __init__(self, folder: Path) -> None:
        data = folder / "data"
        data.mkdir(mode=0o700)
        store = SqliteStore(f"sqlite:///{data / 'moodline.db'}", Retention(dict.fromkeys(TIERS_S, 10**9)))
        with closing(store):
            _, self.key = Keyring(store, SystemClock()).add(KeyRecord(name="front", role=Role.OPERATOR, digest=""))
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MOODLINE_")}
        environment |= {"MOODLINE_DATA_DIR": str(data), "MOODLINE_API_PORT": str(port), "MOODLINE_API_RATE_PER_S": "0"}
        self.log = folder / "api.log"
        with self.log.open("wb") as log:
            command = [*die_with_parent(), MOODLINE, "api"]
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        self.socket = f"ws://127.0.0.1:{port}{SOCKET}&transport=websocket"
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        self.bearer = {"authorization": f"Bearer {self.key}"}

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]  # it is always there

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = Api(tmp_path_factory.mktemp("page"))
    try:
        yield api
    finally:
        api.close()


def test_nobody_gets_a_page_or_a_part_of_one_without_a_session(api: Api) -> None:
    for path in ("/", "/streams/lobby"):
        answer = api.http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path.replace('/', '%2F')}")
    for path in ("/_nicegui/x/static/nicegui.js", "/_nicegui_ws/socket.io/socket.io.js", f"{SOCKET}&transport=polling"):
        answer = api.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
    assert api.http.post(f"{SOCKET}&transport=polling", content=b"x" * 100_000).status_code == 401


def test_the_sign_in_page_stands_alone(api: Api) -> None:
    page = api.http.get("/sign-in")
    assert page.status_code == 200
    assert "_nicegui" not in page.text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert api.http.get(path, headers={"accept": "*/*"}, follow_redirects=False).status_code in (200, 303), path
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_two_thousand_requests_for_pages_cost_no_memory(api: Api) -> None:
    for _ in range(50):
        api.http.get("/")
    before = api.memory_mib()
    for _ in range(2000):
        assert api.http.get("/").status_code == 303
        api.http.get("/sign-in")
    assert api.memory_mib() - before < 16


def test_a_web_socket_opens_for_nobody_without_a_session(api: Api) -> None:
    for headers in ({}, {"Cookie": "moodline_session=mds_" + "A" * 43}):
        with pytest.raises(InvalidStatus) as refused:
            connect(api.socket, additional_headers=headers, proxy=None)
        assert refused.value.response.status_code in (401, 403)


def test_a_web_socket_takes_no_compression_and_one_mebibyte_a_message(api: Api) -> None:
    session = api.http.post("/api/v1/session", json={"key": api.key}).cookies["moodline_session"]
    api.http.cookies.clear()
    page = api.http.get("/", headers={"cookie": f"moodline_session={session}", "accept": "text/html"})
    found = re.search(r"client_id.{0,8}?([0-9a-f-]{36})", page.text)
    assert found is not None
    before = api.memory_mib()
    with connect(
        f"{api.socket}&client_id={found[1]}",
        additional_headers={"Cookie": f"moodline_session={session}"},
        compression="deflate",
        max_size=None,
        proxy=None,
    ) as socket:
        assert socket.protocol.extensions == []
        socket.send("4" + "x" * (2 * MEBIBYTE))
        with pytest.raises(ConnectionClosed) as closed:
            _listen(socket)
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert api.memory_mib() - before < 32
    assert api.http.get("/healthz").status_code == 200


def test_messages_that_are_none_fill_no_log(api: Api) -> None:
    session = api.http.post("/api/v1/session", json={"key": api.key}).cookies["moodline_session"]
    api.http.cookies.clear()
    before = api.log.stat().st_size
    for _ in range(20):
        with connect(api.socket, additional_headers={"Cookie": f"moodline_session={session}"}, proxy=None) as socket:
            socket.send("40")
            for text in ('42["event",{}]', '42["handshake",5]', '42["ack",null]', "9", '42["event"', '42["log",{"x":1}]'):
                socket.send(text)
    time.sleep(1.0)
    assert api.log.stat().st_size - before < 50_000


def test_pages_whose_browser_never_comes_are_few(api: Api) -> None:
    headers = api.bearer | {"accept": "text/html"}
    answers = [api.http.get("/", headers=headers).status_code for _ in range(120)]
    assert set(answers) == {200, 429}
    assert answers.count(200) <= 64
    assert api.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "target", "refused"),
    [
        ("cross-site", "no-cors", "image", True),
        ("cross-site", "navigate", "iframe", True),
        ("same-site", "no-cors", "script", True),
        ("cross-site", "navigate", "document", False),
        ("same-origin", "no-cors", "image", False),
        ("none", "navigate", "document", False),
    ],
)
def test_other_sites_may_lead_here_but_not_embed(api: Api, site: str, mode: str, target: str, refused: bool) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": target}
    assert (api.http.get("/", headers=headers).status_code == 403) is refused


def test_every_answer_tells_the_browser_what_it_may_do(api: Api) -> None:
    for path in ("/", "/sign-in", "/healthz", "/api/v1/streams", "/nowhere", "/openapi.json", "/_nicegui/x"):
        headers = api.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-frame-options"] == "DENY", path


def test_a_page_runs_only_the_scripts_that_were_written_into_it(api: Api) -> None:
    time.sleep(0.1)
    answer = _page(api)
    policy = answer.headers["content-security-policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce is not None
    assert len(base64.urlsafe_b64decode(nonce[1] + "==")) == 16
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert scripts
    assert all(f'nonce="{nonce[1]}"' in script for script in scripts)
    assert nonce[1] not in _page(api).headers["content-security-policy"]


def _listen(socket: ClientConnection) -> None:
    while True:
        socket.recv(30)


def _page(api: Api) -> httpx.Response:
    """Return the page once there is room for one: those of an earlier test are forgotten after a while."""
    deadline = time.monotonic() + 100
    while True:
        answer = api.http.get("/", headers=api.bearer | {"accept": "text/html", "accept-encoding": "gzip"})
        if answer.status_code == 200:
            return answer
        assert answer.status_code == 429
        assert time.monotonic() < deadline
        time.sleep(1)
