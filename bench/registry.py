"""What registered streams cost that lie still: CPU of the ingest workers, and what goes to and from Redis.

Run from the checkout: `python -m bench.registry`. A redis-server is started in a temporary folder. Of the streams one half are
files that have ended, the other half paused cameras with the aggregator state of three faces. Each worker is a process with an
equal share of the shards; it runs for a while before it is measured.
"""

import argparse
import multiprocessing
import resource
import threading
import time
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import redis

from moodline.services.ingest.worker import IngestWorker
from moodline.shared.bus import Record
from moodline.shared.bus.base import Position
from moodline.shared.clock import SystemClock
from moodline.shared.messages import STREAMS_TOPIC, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import HighWaterMark, Retention, Store, TimelineUpdate, open_store
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus
from moodline.shared.timeline.state import ActiveTrack, SavedState, TrackerState, save_state
from tests.support.servers import RedisServer

RETENTION: Final = Retention({1: 86_400})
SHARDS: Final = 64
START_US: Final = 1_700_000_000_000_000


class Membership:
    """A consumer that owns a fixed share of the shards."""

    def __init__(self, number: int, workers: int) -> None:
        self._owned = frozenset((STREAMS_TOPIC, shard) for shard in range(SHARDS) if shard % workers == number)

    def poll(self, max_records: int, timeout_s: float, linger_s: float = 0.0) -> list[Record]:  # noqa: ARG002
        time.sleep(timeout_s)
        return []

    def assignment(self) -> frozenset[tuple[str, int]]:
        return self._owned

    def close(self) -> None:
        pass


class Cameras:
    """None is ever opened: all are paused."""

    open = address_of = None

    def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    for count in options.streams:
        with RedisServer() as server:
            register(open_store(server.url, RETENTION), count)
            measure(server.url, count, options.workers, options.seconds)


def register(store: Store, count: int) -> None:
    state = save_state(SavedState(TrackerState(START_US, 4, [_track(number) for number in range(3)])))
    for number in range(count):
        name, is_file = f"stream-{number:05}", number % 2 == 0
        url, lane = ("file:///srv/media/clip.mp4", StreamClass.FILE) if is_file else ("rtsp://camera.example/1", StreamClass.LIVE)
        store.add(StreamSpec(stream_id=name, url=url, lane=lane, paused=not is_file, labels={"site": "berlin"}))
        epoch = store.acquire(name, START_US / 1e6).epoch
        reported = StreamState.ENDED if is_file else StreamState.PAUSED
        store.set_status(name, epoch, StreamStatus(state=reported, width=1920, height=1080, codec="h264"))
        update = TimelineUpdate(
            stream_id=name,
            expected=None,
            high_water_mark=HighWaterMark(epoch, 1000),
            final=is_file,
            position=Position("moodline.emotions.file.v1", 1, 1000),
            state=b"" if is_file else state,
            last_event_time_us=START_US,
        )
        store.apply([update])
    store.close()


def measure(url: str, count: int, workers: int, seconds: float) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, queue = fork.Barrier(workers + 1), fork.Queue()
    processes = [fork.Process(target=work, args=(url, number, workers, seconds, barrier, queue)) for number in range(workers)]
    for process in processes:
        process.start()
    admin: Any = redis.Redis.from_url(url)
    barrier.wait()
    before, started_s = admin.info(), time.monotonic()
    barrier.wait()
    after, took_s = admin.info(), time.monotonic() - started_s
    cpu_s = sum(queue.get() for _ in processes)
    for process in processes:
        process.join()

    def rate(*names: str) -> float:
        return float(sum(after[name] - before[name] for name in names)) / took_s

    print(
        f"{count:6} streams, {workers} workers: "
        f"workers {cpu_s / took_s:6.3f} cores, redis {rate('used_cpu_user', 'used_cpu_sys'):6.3f} cores, "
        f"{rate('total_net_output_bytes') / 1e6:7.3f} MB/s from and {rate('total_net_input_bytes') / 1e6:7.3f} MB/s to redis, "
        f"{rate('total_commands_processed'):8.0f} commands/s",
        flush=True,
    )


def work(url: str, number: int, workers: int, seconds: float, barrier: Barrier, queue: Any) -> None:
    store, clock, stop = open_store(url, RETENTION), SystemClock(), threading.Event()
    worker = IngestWorker(
        Membership(number, workers),  # type: ignore[arg-type]  # nothing else of a consumer is used here
        None,  # type: ignore[arg-type]  # nothing is sent
        store,
        IngestSettings(),
        Metrics(),
        clock,
        shards=SHARDS,
        cameras=Cameras(),  # type: ignore[arg-type]
    )
    worker._watch.start()
    turn_for(worker, stop, seconds / 2)
    barrier.wait()
    before = resource.getrusage(resource.RUSAGE_SELF)
    turn_for(worker, stop, seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    barrier.wait()
    queue.put(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def turn_for(worker: IngestWorker, stop: threading.Event, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        worker.step(stop)


def _track(number: int) -> ActiveTrack:
    return ActiveTrack(number, (1000, 1000, 9000, 9000), START_US, (600_000_000,) * 7)


if __name__ == "__main__":
    main()
