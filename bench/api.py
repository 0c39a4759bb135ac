"""How fast the API answers on a real Redis: a day of a timeline, and points to many listeners. `python -m bench.api`.

A redis-server is started in a temporary folder, filled with 100 streams of 24 h (10 s points and coarser, 1 s points of the last
hour; one face in most frames), and `moodline api` is started on it as a process of its own.

- **Timelines**: 24 h of one stream at 1 min, asked at a fixed rate whether or not the answers before have come (open loop): once
  of each stream, which nobody has asked for before; then of a random stream each time. The latency counts from the moment at
  which a request was due.
- **Listeners**: Server-Sent Events of points of 1 s. Lag counts from the moment at which a point is written to the store to the
  moment at which a listener has all of its event. Once with all listeners on one stream, once spread over all streams, each of
  which gets a point a second.

Everything shares one machine, so its load before the measurement, which is printed, tells how much the figures are worth.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from moodline.shared.bus.base import Position
from moodline.shared.messages import StreamClass
from moodline.shared.store import ApplyResult, BucketValue, HighWaterMark, Retention, Store, TimelineUpdate, open_store
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.bucket import SECOND_US, TIERS_S, Bucket, merge_all, pack
from moodline.shared.timeline.models import MODELS_SERIES, MODELS_TIER_S, pack_models, record_model
from tests.support.servers import RedisServer, die_with_parent, free_port
from tests.support.service import MOODLINE

DAY_S = 86_400
END_S = 1_777_636_800
RETENTION = Retention(dict.fromkeys(TIERS_S, 10**8))
_CHUNK = 2_000
IDLE_S = 3.0
"""The API closes a connection that was idle for 5 s."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each measurement runs")
    parser.add_argument("--processes", type=int, default=1, help="API processes; requests and listeners are assigned to them")
    options = parser.parse_args()
    names = [f"stream-{number:03}" for number in range(options.streams)]
    load = ", ".join(f"{part:.2f}" for part in os.getloadavg())
    print(f"{psutil.cpu_count()} cores, load before: {load} (1, 5, 15 min)")
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        store = open_store(server.url, RETENTION)
        stack.callback(store.close)
        started_s = time.perf_counter()
        writers = [fill(store, name) for name in names]
        print(f"filled {options.streams} streams with 24 h in {time.perf_counter() - started_s:.0f} s")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moodline-bench-")))
        apis = [stack.enter_context(api(server.url, folder)) for _ in range(options.processes)]
        asyncio.run(ask_timelines(apis, names, options.rate, options.seconds))
        for title, heard in (("one stream", writers[:1]), (f"{options.streams} streams", writers)):
            asyncio.run(listen(title, apis, heard, options.listeners, options.seconds))


@dataclass
class Api:
    """One API process."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def api(store_url: str, folder: Path) -> Iterator[Api]:
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOODLINE_")}
    environment |= {
        "MOODLINE_STORE_URL": store_url,
        "MOODLINE_API_PORT": str(port),
        "MOODLINE_DATA_DIR": str(folder / f"data-{port}"),
        "MOODLINE_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([*die_with_parent(), MOODLINE, "api"], env=environment)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, "the API ended; see its log above"
                time.sleep(0.1)
        yield Api(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


# Filling


@dataclass
class Writer:
    """Writes one stream on, a second at a time."""

    store: Store
    stream_id: str
    high_water_mark: HighWaterMark
    second: int
    rng: random.Random
    written_s: dict[int, float] = field(default_factory=dict)

    def next_update(self) -> TimelineUpdate:
        self.second += 1
        bucket_values = [BucketValue("", tier_s, self.second // tier_s, pack(_bucket(self.rng, 5))) for tier_s in TIERS_S]
        before, self.high_water_mark = (
            self.high_water_mark,
            HighWaterMark(self.high_water_mark.epoch, self.high_water_mark.seq + 5),
        )
        return _update(self.stream_id, before, self.high_water_mark, bucket_values, self.second)


def fill(store: Store, stream_id: str) -> Writer:
    """Register a camera and write its last 24 h."""
    rng = random.Random(stream_id)
    store.add(StreamSpec(stream_id=stream_id, url="rtsp://192.0.2.1/", lane=StreamClass.LIVE, created_at_us=END_S * SECOND_US))
    high_water_mark = HighWaterMark(store.acquire(stream_id, END_S).epoch, 0)
    first = END_S - DAY_S
    tens = {second // 10: _bucket(rng, 50) for second in range(first, END_S, 10)}
    bucket_values = [BucketValue("", 10, index, pack(bucket)) for index, bucket in tens.items()]
    for tier_s in TIERS_S[2:]:
        groups: dict[int, list[Bucket]] = {}
        for index, bucket in tens.items():
            groups.setdefault(index * 10 // tier_s, []).append(bucket)
        bucket_values += [BucketValue("", tier_s, index, pack(merge_all(group))) for index, group in groups.items()]
    bucket_values += [BucketValue("", 1, second, pack(_bucket(rng, 5))) for second in range(END_S - 3600, END_S)]
    for day in range(first // DAY_S, END_S // DAY_S + 1):
        bucket_values.append(
            BucketValue(MODELS_SERIES, MODELS_TIER_S, day, pack_models(record_model(None, "fer-seed", day * DAY_S)[0]))
        )
    before: HighWaterMark | None = None
    for at in range(0, len(bucket_values), _CHUNK):
        assert store.apply([_update(stream_id, before, high_water_mark, bucket_values[at : at + _CHUNK], END_S - 1)]) == [
            ApplyResult.APPLIED
        ]
        before, high_water_mark = high_water_mark, HighWaterMark(high_water_mark.epoch, high_water_mark.seq + 1)
    assert before is not None
    return Writer(store, stream_id, before, END_S - 1, rng)


def _bucket(rng: random.Random, frames: int) -> Bucket:
    """One face in about 9 of 10 stretches, with some emotions more often than others."""
    if rng.random() < 0.1:
        return Bucket(sampled=frames, final=True)
    weights = [rng.random() ** 3 for _ in range(7)]
    smoothed = [int(frames * 65_535 * weight / sum(weights)) for weight in weights]
    raw = [max(0, value + rng.randint(-900, 900)) for value in smoothed]
    leading = [0] * 7
    leading[smoothed.index(max(smoothed))] = frames
    return Bucket(
        sampled=frames,
        frames_with_faces=frames,
        faces=frames,
        raw=tuple(raw),
        smoothed=tuple(smoothed),
        leading=tuple(leading),
        tracks_begun=rng.randint(0, 1),
        final=True,
    )


def _update(
    stream_id: str,
    before: HighWaterMark | None,
    high_water_mark: HighWaterMark,
    bucket_values: Sequence[BucketValue],
    second: int,
) -> TimelineUpdate:
    return TimelineUpdate(
        stream_id=stream_id,
        expected=before,
        high_water_mark=high_water_mark,
        final=False,
        position=Position("moodline.emotions.live.v1", 0, high_water_mark.seq),
        state=b"",
        last_event_time_us=second * SECOND_US,
        bucket_values=tuple(bucket_values),
    )


# Timelines


async def ask_timelines(apis: Sequence[Api], names: Sequence[str], rate: float, seconds: float) -> None:
    window = f"from={_iso(END_S - DAY_S)}&to={_iso(END_S)}&resolution=1min"
    pools = [ConnectionPool(each.port) for each in apis]
    for pool in pools:
        for _ in range(20):
            await pool.get(f"/api/v1/streams/{names[0]}/timeline?{window}")
    rng = random.Random(1)
    again = rng.choices(names, k=int(rate * seconds))
    for title, asked in (("asked for the first time", list(names)), ("of any stream", again)):
        await ask_at(title, apis, pools, [f"/api/v1/streams/{name}/timeline?{window}" for name in asked], rate)


async def ask_at(title: str, apis: Sequence[Api], pools: Sequence["ConnectionPool"], targets: Sequence[str], rate: float) -> None:
    cpu_s, started_s = sum(each.cpu_s() for each in apis), time.perf_counter()
    latencies: list[float] = []
    sizes: list[int] = []

    async def ask(due_s: float, number: int) -> None:
        body = await pools[number % len(pools)].get(targets[number])
        latencies.append(time.perf_counter() - due_s)
        sizes.append(len(body))

    tasks = []
    for number in range(len(targets)):
        due_s = started_s + number / rate
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(due_s, number)))
    await asyncio.gather(*tasks)
    took_s = time.perf_counter() - started_s
    cpu_s = sum(each.cpu_s() for each in apis) - cpu_s
    points = len(json.loads(await pools[0].get(targets[0]))["points"])
    assert points == DAY_S // 60, points
    latencies.sort()
    megabytes = sum(sizes) / len(sizes) / 1e6
    print(
        f"timelines {title}: {len(latencies)} answers of {points} points, {megabytes:.2f} MB, at {rate:.0f}/s: "
        f"p50 {_ms(latencies, 0.5)}, p90 {_ms(latencies, 0.9)}, p99 {_ms(latencies, 0.99)}, most {_ms(latencies, 1)}; API "
        f"{cpu_s / len(latencies) * 1e3:.1f} ms CPU each, {cpu_s / took_s:.2f} cores (aim: p99 below 15 ms)"
    )


class ConnectionPool:
    """Keeps connections open, as a browser does; the least that can read an answer, so that little of the time is its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def get(self, target: str) -> bytes:
        while self._idle and self._idle[0][2] < time.perf_counter() - IDLE_S:
            self._idle.pop(0)[1].close()
        if self._idle:
            reader, writer, _ = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4 * 1024 * 1024)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        self._idle.append((reader, writer, time.perf_counter()))
        return body


def _iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")


def _ms(ordered: Sequence[float], share: float) -> str:
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3:.1f} ms"


# Listeners


async def listen(title: str, apis: Sequence[Api], writers: Sequence[Writer], listeners: int, seconds: float) -> None:
    lags: list[float] = []
    written: dict[str, float] = {}
    ready = asyncio.Semaphore(0)
    tasks = [
        asyncio.create_task(hear(apis[number % len(apis)].port, writers[number % len(writers)].stream_id, written, lags, ready))
        for number in range(listeners)
    ]
    for _ in tasks:
        await ready.acquire()
    cpu_s, started_s = sum(each.cpu_s() for each in apis), time.perf_counter()
    stop = threading.Event()
    thread = threading.Thread(target=write, args=(writers, written, seconds, stop))
    thread.start()
    await asyncio.sleep(seconds + 2)
    cpu_s, took_s = sum(each.cpu_s() for each in apis) - cpu_s, time.perf_counter() - started_s
    stop.set()
    thread.join()
    threads = max(each.process.num_threads() for each in apis)
    memory = max(each.process.memory_info().rss for each in apis) / 1024**2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    expected = listeners * int(seconds)
    lags.sort()
    print(
        f"listeners: {listeners} on {title}, a point a second each: {len(lags)} of {expected} points heard; lag p50 "
        f"{_ms(lags, 0.5)}, p99 {_ms(lags, 0.99)}, most {_ms(lags, 1)}; API {cpu_s / took_s:.2f} cores, {threads} threads, "
        f"{memory:.0f} MiB (aim: most below 1000 ms)"
    )


def write(writers: Sequence[Writer], written: dict[str, float], seconds: float, stop: threading.Event) -> None:
    """Write a point of every stream each second, spread over the second as cameras are."""
    started_s = time.perf_counter()
    groups = [writers[at::10] for at in range(10)]
    for step in range(int(seconds) * 10):
        stop.wait(max(0.0, started_s + step / 10 - time.perf_counter()))
        group = groups[step % 10]
        updates = [writer.next_update() for writer in group]
        now_s = time.perf_counter()
        for writer in group:
            written[f"{writer.stream_id} {_iso(writer.second)}"] = now_s
        if updates:
            assert set(writers[0].store.apply(updates)) == {ApplyResult.APPLIED}


async def hear(port: int, stream_id: str, written: dict[str, float], lags: list[float], ready: asyncio.Semaphore) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /api/v1/events?stream={stream_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        heard: set[str] = set()
        while line := await reader.readline():
            if line.startswith(b'data: {"time"'):
                ready.release()
            if not line.startswith(b'data: {"stream"') or b'"start":"' not in line:
                continue
            start = line.partition(b'"start":"')[2].partition(b'"')[0].decode()
            point = f"{stream_id} {start}"
            if point in written and point not in heard:
                heard.add(point)
                lags.append(time.perf_counter() - written[point])
    finally:
        writer.close()


if __name__ == "__main__":
    main()
