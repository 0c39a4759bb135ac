"""How fast the two stores are, and how much memory a bucket takes in Redis. Run from the checkout: `python -m bench.store`.

Without `--redis` a server is started in a temporary folder (append-only file, synced each second). An update is what the
aggregator writes for one frame: the running bucket of five tiers, one tracked face's second and its summary (seven bucket
values of 45 to 60 bytes) and 400 bytes of state.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import redis

from moodline.shared.bus.base import Position
from moodline.shared.store import ApplyResult, BucketValue, HighWaterMark, Retention, Store, TimelineUpdate, open_store
from moodline.shared.streams import StreamSpec
from tests.support.servers import RedisServer

TIERS_S = (1, 10, 60, 600, 3600)
RETENTION = Retention({1: 2 * 86_400, 10: 14 * 86_400, 60: 60 * 86_400, 600: 365 * 86_400, 3600: 1825 * 86_400})
START_S = 1_700_000_040
STREAMS = 100
DAY_MINUTES = 24 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--redis", help="store URL of a Redis to use; its database is emptied")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each writing measurement runs")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moodline-bench-")))
        url = options.redis or stack.enter_context(RedisServer()).url
        admin = redis.Redis.from_url(url)
        admin.flushdb()
        for name, store_url in (("sqlite", f"sqlite:///{folder / 'bench.db'}"), ("redis", url)):
            measure(name, open_store(store_url, RETENTION), options.seconds)
        admin.flushdb()
        for low, high in ((45, 60), (60, 60), (90, 90)):
            grown = bytes_per_bucket(url, admin, low, high)
            print(f"redis   {grown:8.1f} bytes of memory per 1 s bucket of {low} to {high} bytes")


def measure(name: str, store: Store, seconds: float) -> None:
    names = [f"stream-{number}" for number in range(STREAMS)]
    for stream_id in names:
        store.add(StreamSpec(stream_id=stream_id, url="synthetic://bench"))
    epochs = [store.acquire(stream_id, START_S).epoch for stream_id in names]
    for streams in (1, STREAMS):
        rate = writing_rate(store, names[:streams], epochs[:streams], seconds)
        print(f"{name:7} {rate:8.0f} updates/s, {streams:3} streams per call, {1e6 / rate:6.1f} us per update")
    fill_day(store, names, epochs)
    started_s = time.perf_counter()
    first = START_S // 60 + 1_000_000
    bucket_values = sum(len(store.read(stream_id, "", 60, first, first + DAY_MINUTES)) for stream_id in names)
    took_s = time.perf_counter() - started_s
    assert bucket_values == STREAMS * DAY_MINUTES
    print(f"{name:7} {took_s * 1e3:8.0f} ms to read 24 h at 1 min of {STREAMS} streams ({bucket_values / took_s:.0f} cells/s)")
    started_s = time.perf_counter()
    store.remove(names[0])
    print(f"{name:7} {(time.perf_counter() - started_s) * 1e3:8.1f} ms to remove a stream")
    store.close()


def writing_rate(store: Store, names: list[str], epochs: list[int], seconds: float) -> float:
    high_water_marks: list[HighWaterMark | None] = [
        progress.high_water_mark if progress else None for progress in store.load(names)
    ]
    batches = updates(names, epochs, high_water_marks)
    done, spent_s = 0, 0.0
    while spent_s < seconds:
        batch = next(batches)
        started_s = time.perf_counter()
        results = store.apply(batch)
        spent_s += time.perf_counter() - started_s
        assert set(results) == {ApplyResult.APPLIED}
        done += len(batch)
    return done / spent_s


def updates(names: list[str], epochs: list[int], high_water_marks: list[HighWaterMark | None]) -> Iterator[list[TimelineUpdate]]:
    """Yield one frame of every stream at a time, five a second, a new face every 30 s."""
    rng = random.Random(7)
    frame = 0 if high_water_marks[0] is None else high_water_marks[0].seq + 1
    while True:
        second = START_S + frame // 5
        track = frame // 150
        bucket_values = [BucketValue("", tier_s, second // tier_s, value(rng)) for tier_s in TIERS_S]
        bucket_values += [BucketValue(f"track/{track}", 1, second, value(rng)), BucketValue("tracks", 0, track, value(rng))]
        after = [HighWaterMark(epoch, frame) for epoch in epochs]
        yield [
            update(stream_id, before, high_water_mark, tuple(bucket_values))
            for stream_id, before, high_water_mark in zip(names, high_water_marks, after, strict=True)
        ]
        high_water_marks = list(after)
        frame += 1


def update(
    stream_id: str, before: HighWaterMark | None, high_water_mark: HighWaterMark, bucket_values: tuple[BucketValue, ...]
) -> TimelineUpdate:
    position = Position("moodline.emotions.file.v1", 3, high_water_mark.seq)
    return TimelineUpdate(
        stream_id=stream_id,
        expected=before,
        high_water_mark=high_water_mark,
        final=False,
        position=position,
        state=b"s" * 400,
        last_event_time_us=high_water_mark.seq,
        bucket_values=bucket_values,
    )


def value(rng: random.Random, low: int = 45, high: int = 60) -> bytes:
    return rng.randbytes(rng.randint(low, high))


def fill_day(store: Store, names: list[str], epochs: list[int]) -> None:
    rng = random.Random(8)
    first = START_S // 60 + 1_000_000
    for stream_id, epoch, progress in zip(names, epochs, store.load(names), strict=True):
        assert progress is not None
        assert progress.high_water_mark is not None
        bucket_values = tuple(BucketValue("", 60, first + minute, value(rng)) for minute in range(DAY_MINUTES))
        store.apply(
            [update(stream_id, progress.high_water_mark, HighWaterMark(epoch, progress.high_water_mark.seq + 1), bucket_values)]
        )


def bytes_per_bucket(url: str, admin: "redis.Redis", low: int, high: int) -> float:
    """Write 2 h of one stream second by second, as a live camera does, and return how much Redis' memory grew per second."""
    rng = random.Random(9)
    store = open_store(url, RETENTION)
    store.add(StreamSpec(stream_id="memory", url="synthetic://bench"))
    epoch = store.acquire("memory", START_S).epoch
    used: Callable[[], int] = lambda: int(admin.info("memory")["used_memory"])  # type: ignore[index,arg-type,unused-ignore]  # noqa: E731
    before: HighWaterMark | None = HighWaterMark(epoch, 0)
    store.apply([update("memory", None, HighWaterMark(epoch, 0), (BucketValue("", 1, START_S - 60, b""),))])
    seconds = 7200
    used_before = used()
    for second in range(seconds):
        high_water_mark = HighWaterMark(epoch, second + 1)
        store.apply([update("memory", before, high_water_mark, (BucketValue("", 1, START_S + second, value(rng, low, high)),))])
        before = high_water_mark
    grown = used() - used_before
    store.remove("memory")
    store.close()
    return grown / seconds


if __name__ == "__main__":
    main()
