"""What attacks cost a running service. `python -m bench.attacks`, or `--tree DIRECTORY` for another checkout of Moodline.

Each attack meets a fresh `moodline run` that asks for keys, on loopback and in a data directory of its own. Meanwhile somebody at
another address asks for `/healthz` ten times a second. A row tells the CPU time of the service and its processes, the most memory
that they have together (proportional set size, which counts shared pages once), how much that is above the service at rest, the
longest wait for `/healthz`, and what became of the attack. Everything shares one machine, so compare rows of one run.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil

_PORT_WAIT_S = 120.0
_SETTLE_S = 3.0
_LARGE = (6112, 8160)
"""Height and width of a picture of 50 megapixels."""
_SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@dataclass
class Target:
    """The service that is attacked."""

    port: int
    keys: dict[str, str]
    log: Path
    folder: Path
    media: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.keys[key]}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def raw(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        if first:
            connection.sendall(first)
        return connection


# Attacks. Each returns what became of it.


def large_socket_messages(target: Target) -> str:
    """32 messages of 16 MiB, compressed to 17 kB each, on the page's web socket, by nobody."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    message = '42["x","' + "A" * (16 * 1024 * 1024 - 200) + '"]'

    def send(_: int) -> int:
        try:
            with connect(f"ws://127.0.0.1:{target.port}{_SOCKET}", proxy=None, max_size=None, open_timeout=60) as link:
                for _ in range(8):
                    link.send(message)
                with suppress(TimeoutError):
                    link.recv(5)
                return 1
        except (WebSocketException, OSError):
            return 0

    with ThreadPoolExecutor(4) as pool:
        return f"{sum(pool.map(send, range(4)))} of 4 sockets opened"


def malformed_socket_messages(target: Target) -> str:
    """10 kB of messages that are none, on the page's web socket, by nobody."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    before, opened = target.log.stat().st_size, 0
    for _ in range(20):
        with suppress(WebSocketException, OSError), connect(f"ws://127.0.0.1:{target.port}{_SOCKET}", proxy=None) as link:
            opened += 1
            link.send("40")
            for number in range(20):
                link.send(f'42["event_{number}",{{"x":[]}}')
            with suppress(TimeoutError):
                link.recv(0.5)
    return f"{opened} of 20 sockets opened, {(target.log.stat().st_size - before) // 1000} kB of log"


def bodies_of_unknown_fields(target: Target) -> str:
    """17 bodies of 1 MB of unknown fields for `POST /api/v1/session`, by nobody."""
    body = json.dumps({f"f{number}": 1 for number in range(76_000)}).encode()

    def send(_: int) -> int:
        try:
            with target.client() as client:
                return client.post("/api/v1/session", content=body, headers={"content-type": "application/json"}).status_code
        except httpx.TransportError:
            return 0

    with ThreadPoolExecutor(17) as pool:
        return "answered " + _counts(pool.map(send, range(17)))


def unknown_keys(target: Target) -> str:
    """300 unknown keys, while somebody at the same address asks 34 times with a good one."""
    stop = threading.Event()

    def guess() -> None:
        with target.client() as client:
            for number in range(300):
                if stop.is_set():
                    return
                with suppress(httpx.TransportError):
                    client.get("/api/v1/streams", headers={"authorization": f"Bearer mdl_{number:043}"})

    guesser = threading.Thread(target=guess)
    guesser.start()
    try:
        with target.client("admin") as client:
            answers = []
            for _ in range(34):
                time.sleep(0.05)
                answers.append(client.get("/api/v1/streams").status_code)
    finally:
        stop.set()
        guesser.join()
    return f"the good key: {answers.count(200)} of 34 answered"


def half_requests(target: Target) -> str:
    """1,500 connections that send half a head and wait."""
    with ExitStack() as stack:
        connections = []
        for _ in range(1500):
            try:
                connection = stack.enter_context(closing(target.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")))
            except OSError:
                continue
            connections.append(connection)
        time.sleep(20)
        return f"{sum(map(_is_open, connections))} of 1500 open after 20 s"


def tiny_chunks(target: Target) -> str:
    """20 connections that send bodies in chunks of one byte for 5 s, by nobody."""
    head = b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    def send(_: int) -> int:
        sent = 0
        with suppress(OSError), closing(target.raw(head)) as connection:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                connection.sendall(b"1\r\nx\r\n" * 10_000)
                sent += 60_000
        return sent

    with ThreadPoolExecutor(20) as pool:
        return f"{sum(pool.map(send, range(20))) / 1e6:.1f} MB taken"


def anonymous_pages(target: Target) -> str:
    """2,000 requests for the page by nobody."""
    with target.client() as client:
        return "answered " + _counts(client.get("/").status_code for _ in range(2000))


def dripping_uploads(target: Target) -> str:
    """Four uploads of one key that send a byte a second, while another key uploads a file."""
    head = (
        f"POST /api/v1/uploads?name=slow.mp4 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.keys['greedy']}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
    )
    with ExitStack() as stack:
        drips = [stack.enter_context(closing(target.raw(head.encode()))) for _ in range(4)]
        for _ in range(5):
            for drip in drips:
                with suppress(OSError):
                    drip.sendall(b"\0")
            time.sleep(1)
        with target.client("operator") as client:
            status = client.post("/api/v1/uploads", params={"name": "small.mp4"}, content=_clip(target)).status_code
        return f"the other key's upload: {status}"


def large_jpegs_pushed(target: Target) -> str:
    """Six progressive JPEG images of 50 megapixels pushed at the same time."""
    jpeg = _large_jpeg()
    with target.client("operator") as client:
        for number in range(6):
            client.post("/api/v1/streams", json={"id": f"push{number}", "url": "push://"})

    def push(number: int) -> int:
        with target.client("operator") as client:
            sent = client.post(f"/api/v1/streams/push{number}/frames", content=jpeg, headers={"content-type": "image/jpeg"})
            return sent.status_code

    with ThreadPoolExecutor(6) as pool:
        return f"{len(jpeg) // 1000} kB each, answered " + _counts(pool.map(push, range(6)))


def large_videos_uploaded(target: Target) -> str:
    """Two uploads of a video of 50 megapixels a frame, registered as streams."""
    film = _large_film(target.folder)
    states: list[str] = []
    with target.client("operator") as client:
        for number in range(2):
            sent = client.post("/api/v1/uploads", params={"name": f"large{number}.avi"}, content=film)
            if sent.status_code != 201:
                states.append(f"upload {sent.status_code}")
                continue
            answer = client.post("/api/v1/streams", json={"id": f"large{number}", "url": sent.json()["url"]})
            states.append(f"stream {answer.status_code}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [each["status"] for each in client.get("/api/v1/streams").json()["streams"]]
            if all(each["state"] in ("ended", "failed") for each in found):
                break
            time.sleep(1)
        said = sorted({f"{each['state']} {each.get('reason') or ''}".strip() for each in found})
    return f"{len(film) / 1e6:.1f} MB each, {', '.join(sorted(set(states)))}, then {', '.join(said) or 'none'}"


def pauses_without_effect(target: Target) -> str:
    """2,000 calls of `pause` on a stream that is paused already."""
    with target.client("operator") as client:
        client.post("/api/v1/streams", json={"id": "calm", "url": "push://"})
        statuses = [client.post("/api/v1/streams/calm/pause").status_code for _ in range(2000)]
    with target.client("admin") as admin:
        answer = admin.get("/api/v1/audit", params={"limit": 100})
        entries = answer.text.count("calm") if answer.status_code == 200 else -1
    return f"answered {_counts(statuses)}; {entries} entries of it in the audit log's newest page"


ATTACKS: list[Callable[[Target], str]] = [
    large_socket_messages,
    malformed_socket_messages,
    bodies_of_unknown_fields,
    unknown_keys,
    half_requests,
    tiny_chunks,
    anonymous_pages,
    dripping_uploads,
    large_jpegs_pushed,
    large_videos_uploaded,
    pauses_without_effect,
]


def _counts(statuses: Iterator[int] | list[int] | map) -> str:  # type: ignore[type-arg]
    known: dict[int, int] = {}
    for status in statuses:
        known[status] = known.get(status, 0) + 1
    return ", ".join(f"{status or 'cut off'} x {count}" for status, count in sorted(known.items()))


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def _large_jpeg() -> bytes:
    image = np.zeros((*_LARGE, 3), np.uint8)
    image[::64] = 90
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30, cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    return bytes(encoded)


def _large_film(folder: Path) -> bytes:
    """A Motion JPEG film of 20 frames, encoded once: the same picture each time."""
    image = np.zeros((*_LARGE, 3), np.uint8)
    image[::64] = 90
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])
    picture = folder / "large.jpg"
    picture.write_bytes(bytes(encoded))
    film = folder / "large.avi"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-stream_loop", "19", "-framerate", "5", "-i", picture, "-c:v", "copy", "-y", film], check=True
    )
    return film.read_bytes()


def _clip(target: Target) -> bytes:
    film = target.folder / "small.mp4"
    if not film.exists():
        source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=2"]
        subprocess.run(["ffmpeg", "-v", "error", *source, "-pix_fmt", "yuv420p", "-y", film], check=True)
    return film.read_bytes()


# Measuring


@dataclass
class Watch:
    """Looks at a process and its children, and asks for `/healthz`, until it is closed."""

    process: psutil.Process
    url: str
    rest_mb: float = 0.0
    peak_mb: float = 0.0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    _cpu: dict[int, float] = field(default_factory=dict)
    _first: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watch":
        self._look()
        self._first, self.rest_mb = dict(self._cpu), self.peak_mb
        self._threads = [threading.Thread(target=self._sample), threading.Thread(target=self._ask)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.cpu_s = sum(spent - self._first.get(pid, 0.0) for pid, spent in self._cpu.items())

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def _look(self) -> None:
        total = 0.0
        with suppress(psutil.Error):
            for each in (self.process, *self.process.children(recursive=True)):
                with suppress(psutil.Error):
                    times = each.cpu_times()
                    self._cpu[each.pid] = times.user + times.system
                    total += each.memory_full_info().pss / 1e6
        self.peak_mb = max(self.peak_mb, total)

    def _ask(self) -> None:
        transport = httpx.HTTPTransport(local_address="127.0.0.9")
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            while not self._stop.wait(0.1):
                started = time.monotonic()
                with suppress(httpx.TransportError):
                    client.get(f"{self.url}/healthz")
                self.longest_s = max(self.longest_s, time.monotonic() - started)


@contextmanager
def service(tree: Path, folder: Path) -> Iterator[tuple[Target, psutil.Process]]:
    """Start `moodline run` of a checkout, with three keys."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    media = folder / "media"
    media.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOODLINE_")} | {
        "PYTHONPATH": str(tree),
        "MOODLINE_DATA_DIR": str(folder / "data"),
        "MOODLINE_INGEST_MEDIA_ROOT": str(folder),
        "MOODLINE_API_PORT": str(port),
        "MOODLINE_API_ACCESS": "keys",
        "MOODLINE_DETECTOR_THREADS": "1",
        "MOODLINE_CLASSIFIER_THREADS": "1",
    }
    command = [sys.executable, "-m", "moodline"]
    keys = {}
    for name, role in (("admin", "admin"), ("operator", "operator"), ("greedy", "operator")):
        added = [*command, "keys", "add", name, "--role", role]
        said = subprocess.run(added, env=environment, cwd=tree, check=True, capture_output=True, text=True)
        keys[name] = re.findall(r"mdl_\S+", said.stdout)[0]
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen([*command, "run"], env=environment, cwd=tree, stdout=written, stderr=written)
    try:
        target = Target(port, keys, log, folder, media)
        deadline = time.monotonic() + _PORT_WAIT_S
        while not _answers(target):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text(errors="replace")[-3000:])
            time.sleep(0.2)
        time.sleep(_SETTLE_S)
        yield target, psutil.Process(process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def _answers(target: Target) -> bool:
    try:
        return httpx.get(f"{target.url}/readyz", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parent.parent, help="checkout that is attacked")
    parser.add_argument("--only", nargs="*", default=[], help="names of attacks, such as half_requests")
    options = parser.parse_args()
    load = ", ".join(f"{part:.2f}" for part in os.getloadavg())
    print(f"{psutil.cpu_count()} cores, load before: {load} (1, 5, 15 min); {options.tree}", flush=True)
    print("| attack | CPU s | memory MB, peak (above rest) | longest /healthz s | outcome |\n| --- | ---: | ---: | ---: | --- |")
    for attack in ATTACKS:
        if options.only and attack.__name__ not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="moodline-attack-") as folder, service(options.tree, Path(folder)) as started:
            target, process = started
            with Watch(process, target.url) as watch:
                try:
                    outcome = attack(target)
                except (OSError, httpx.HTTPError) as error:
                    outcome = f"cut off: {type(error).__name__}"
                alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
                time.sleep(1)
            what = (attack.__doc__ or "").removesuffix(".")
            memory = f"{watch.peak_mb:.0f} (+{watch.peak_mb - watch.rest_mb:.0f})"
            ended = "" if alive else "; the service ended"
            print(f"| {what} | {watch.cpu_s:.1f} | {memory} | {watch.longest_s:.2f} | {outcome}{ended} |", flush=True)


if __name__ == "__main__":
    main()
