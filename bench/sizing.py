"""What a deployment needs: cores, memory, brokers, disks, partitions and network for so many cameras.

    python -m bench.sizing --cameras 10000 --fps 5 --faces 1 [--camera-mbit 2] [--frame-kb 32] … ; --help names every figure

The formulae are those of docs/scaling.md; the defaults are measured there and in docs/benchmarks.md, on one core of an Intel Xeon
with AVX-512 and bfloat16. Give your own where you have measured them.
"""

import argparse
import dataclasses
import math
from dataclasses import dataclass, field

from moodline.shared.settings import StoreSettings

_TIERS_S = (1, 10, 60, 600, 3600)
_KB, _MB, _GB = 1e3, 1e6, 1e9
_MIB_PER_PARTITION = 1024
"""Most that a partition of live frames, or of crops, keeps: `shared/bus/retention.py`."""


def _given(default: float, meaning: str) -> float:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Load:
    """What is asked for, and what each thing costs."""

    cameras: float = _given(10_000, "cameras")
    fps: float = _given(5, "analysed frames per second and camera")
    faces: float = _given(1, "faces per frame")
    camera_mbit: float = _given(2, "what a camera sends, in Mbit/s")
    frame_kb: float = _given(32, "a frame as JPEG on the bus, in kB")
    decode_core: float = _given(0.026, "cores that reading one camera takes")
    camera_mib: float = _given(13.4, "memory of reading one camera, in MiB")
    detect_ms: float = _given(5.0, "CPU time of the detector for one frame, in ms: its JPEG, the search, the crops")
    classify_per_s: float = _given(1700, "faces that one core classifies per second, messages included")
    aggregate_per_s: float = _given(5000, "frames that one core puts into timelines per second")
    redis_us: float = _given(78, "Redis' time for one update, in us")
    broker_mb_s: float = _given(150, "what one broker takes in, replicas included, in MB/s")
    partition_mb_s: float = _given(10, "what one partition carries, in MB/s")
    replicas: float = _given(3, "copies of each record")
    busy: float = _given(0.6, "how busy a core should be at most, 0 to 1")
    bucket_bytes: float = _given(60.5, "memory of one bucket in Redis, in bytes")


@dataclass(frozen=True)
class Need:
    """One line of the answer."""

    part: str
    amount: float
    unit: str
    formula: str


def streams_memory_bytes(load: Load, store: StoreSettings) -> float:
    """Return what one stream's timeline takes in Redis once every tier is as long as it is kept, in bytes.

    The finest tier has a bucket more for each face that is followed.
    """
    kept_s = (store.retention_1s_s, store.retention_10s_s, store.retention_1min_s, store.retention_10min_s, store.retention_1h_s)
    buckets = sum(kept / tier for kept, tier in zip(kept_s, _TIERS_S, strict=True)) + load.faces * kept_s[0]
    return buckets * load.bucket_bytes


def needs(load: Load, store: StoreSettings) -> list[Need]:
    """Return what the load needs, in the order of docs/scaling.md."""
    frames = load.cameras * load.fps
    faces = frames * load.faces
    frames_mb = frames * load.frame_kb * _KB / _MB
    # 2,304 bytes of a crop and some 40 around it; a header has about 130.
    crops_mb = (frames * 130 + faces * 2344) / _MB
    results_mb = (frames * 150 + faces * 60) / _MB
    bus_mb = frames_mb + crops_mb + results_mb
    partitions = _partitions(load, frames_mb)
    bound_mb = partitions * _MIB_PER_PARTITION * 2**20 / _MB
    kept_mb = min(frames_mb * 600, bound_mb) + min(crops_mb * 86_400, bound_mb) + results_mb * 86_400
    return [
        Need("frames analysed", frames, "per s", "cameras x fps"),
        Need("network from cameras", load.cameras * load.camera_mbit / 1000, "Gbit/s", "cameras x Mbit/s"),
        Need("ingest, CPU", load.cameras * load.decode_core / load.busy, "cores", "cameras x cores each / busy"),
        Need("ingest, memory", load.cameras * load.camera_mib / 1024, "GiB", "cameras x MiB"),
        Need("detector, CPU", frames * load.detect_ms / 1000 / load.busy, "cores", "frames x ms / busy"),
        Need("classifier, CPU", faces / load.classify_per_s / load.busy, "cores", "faces / faces per core / busy"),
        Need("aggregator, CPU", frames / load.aggregate_per_s / load.busy, "cores", "frames / frames per core / busy"),
        Need("Kafka, taken in", bus_mb, "MB/s", "frames x JPEG + faces x crop + results"),
        Need("Kafka, given out", bus_mb + bus_mb * (load.replicas - 1), "MB/s", "one reader each + followers"),
        Need(
            "Kafka, brokers", math.ceil(bus_mb * load.replicas / load.broker_mb_s), "", "taken in x replicas / MB/s of a broker"
        ),
        Need("Kafka, disks", kept_mb * load.replicas * _MB / _GB, "GB", "what the topics keep x replicas"),
        Need(
            "partitions", _partitions(load, frames_mb), "", "most of: MB/s / 10, detector workers of 2 cores; up to a power of 2"
        ),
        Need("Redis, CPU", frames * load.redis_us / 1e6 / load.busy, "nodes", "frames x us / busy; a node is one core"),
        Need("Redis, memory", load.cameras * streams_memory_bytes(load, store) / _GB, "GB", "cameras x buckets kept x bytes"),
    ]


def _partitions(load: Load, frames_mb: float) -> int:
    detectors = load.cameras * load.fps * load.detect_ms / 1000 / load.busy / 2
    return 1 << math.ceil(math.log2(max(1.0, frames_mb / load.partition_mb_s, detectors)))


def parse(arguments: list[str] | None = None) -> tuple[Load, StoreSettings]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for item in dataclasses.fields(Load):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=float, default=item.default, help=item.metadata["help"])
    for tier in ("1s", "10s", "1min", "10min", "1h"):
        name = f"retention_{tier}_s"
        default = StoreSettings.model_fields[name].default
        parser.add_argument(f"--retention-{tier}-s", type=int, default=default, help=f"how long {tier} points are kept, in s")
    options = vars(parser.parse_args(arguments))
    names = {item.name for item in dataclasses.fields(Load)}
    for name, value in options.items():
        if value <= 0 and name not in {"faces"}:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    load = Load(**{name: value for name, value in options.items() if name in names})
    return load, StoreSettings.model_validate({name: value for name, value in options.items() if name not in names})


def main() -> None:
    load, store = parse()
    print("| part | needs | | formula |\n| --- | ---: | --- | --- |")
    for need in needs(load, store):
        amount = f"{need.amount:,.0f}" if need.amount >= 10 or isinstance(need.amount, int) else f"{need.amount:.1f}"
        print(f"| {need.part} | {amount} | {need.unit} | {need.formula} |")


if __name__ == "__main__":
    main()
