"""The whole pipeline against a hand-written loop, in one run: frames/s, faces/s, CPU-seconds, memory.

    python -m bench.pipeline [CLIP…] [--repeat 4] [--fer-python PATH] [--backlog-minutes 0]

Without a clip a built-in scene is written to a video file first.

(a) a hand-written loop in one process: decode, detect, crop, classify, with the very same models; and one per core
(b) Moodline embedded: one process, memory bus, SQLite; every frame also goes through JPEG, messages and an exactly-once timeline
(c) Moodline distributed: one worker of each kind, a real Kafka and a real Redis on this machine
(d) the `fer` library from PyPI with its Haar detector, where --fer-python names an interpreter that has it

Each mode analyses the same frames (all of them). Model loading is not counted. Ratios are of this run; machines are noisy.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from moodline.services.classifier.factory import open_model
from moodline.services.detector.crop import cut_square, square_around
from moodline.services.detector.factory import open_detector
from moodline.services.ingest.file.open import open_source
from moodline.services.runtime.embedded import EmbeddedService
from moodline.shared.settings import BusSettings, IngestSettings, Settings, StoreSettings, load_settings
from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.servers import KafkaServer, RedisServer


@dataclass
class Result:
    mode: str
    frames: int
    faces: int
    wall_s: float
    cpu_s: float
    memory_mib: dict[str, float] = field(default_factory=dict)
    note: str = ""


def cpu_self_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_mib(pid: int | str = "self") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def settings_for(clips: list[Path]) -> Settings:
    base = load_settings()
    return base.model_copy(update={"ingest": IngestSettings(media_root=clips[0].parent, sample_fps="all")})


def specs_for(clips: list[Path], repeat: int) -> list[StreamSpec]:
    return [
        StreamSpec(stream_id=f"s{number}-{clip.stem.lower()}", url=clip.as_uri(), sample_fps="all", recorded_at_us=0)
        for number in range(repeat)
        for clip in clips
    ]


def write_scene(path: Path) -> Path:
    """Write 20 s of the built-in scene as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        for frame in open_source("synthetic://astronaut?seconds=20&fps=25&faces=1&seed=1", IngestSettings()).frames():
            picture = av.VideoFrame.from_ndarray(frame.to_bgr(), format="bgr24")
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def run_loop(clips: list[Path], repeat: int) -> Result:
    settings = settings_for(clips)
    # One face at a time is what a loop has; a padded batch would make it look worse than it need be.
    detector = open_detector(settings.detector)
    model = open_model(settings.classifier.model_copy(update={"batch_size": 1}))
    frames = faces = 0
    cpu, wall = cpu_self_s(), time.perf_counter()
    for clip in clips * repeat:
        source = open_source(clip.as_uri(), settings.ingest)
        for frame in source.frames():
            image = frame.to_bgr()
            boxes = detector.detect(image)
            if len(boxes):
                squares = [square_around(tuple(map(float, box)), detector.square_from) for box in boxes[:, :4]]
                crops = np.stack([cut_square(image, *square) for square in squares])
                faces += len(model.predict(crops))
            frames += 1
        source.close()
    result = Result("(a) hand-written loop", frames, faces, time.perf_counter() - wall, cpu_self_s() - cpu, {"all": rss_mib()})
    model.close()
    return result


def run_loops(clips: list[Path], repeat: int) -> Result:
    """One loop per core, each with its share of the work: the best that is to be had by hand."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(run_loop, [clips[:1]] * cores, [1] * cores))  # load and warm up
        parts = list(pool.map(run_loop, [clips] * cores, [repeat // cores] * cores))
        wall = max(part.wall_s for part in parts)
    total = [sum(getattr(part, name) for part in parts) for name in ("frames", "faces", "cpu_s")]
    memory = {"all": sum(part.memory_mib["all"] for part in parts)}
    return Result(f"(a{cores}) {cores} such loops side by side", total[0], total[1], wall, total[2], memory)


def run_embedded(clips: list[Path], repeat: int) -> Result:
    with tempfile.TemporaryDirectory() as directory:
        settings = settings_for(clips).model_copy(
            update={
                "bus": BusSettings(),
                "store": StoreSettings.model_validate({"url": f"sqlite:///{directory}/bench.db"}),
            }
        )
        with EmbeddedService(settings) as service:
            store, specs = service.resources.store, specs_for(clips, repeat)
            cpu, wall = cpu_self_s(), time.perf_counter()
            for spec in specs:
                store.add(spec)
            while not all(item and item.final for item in store.load([spec.stream_id for spec in specs])):
                service.check()
                time.sleep(0.02)
            wall, cpu = time.perf_counter() - wall, cpu_self_s() - cpu
            frames = sum(
                item.high_water_mark.seq for item in store.load([s.stream_id for s in specs]) if item and item.high_water_mark
            )
            faces = int(
                service.resources.metrics.registry.get_sample_value("moodline_faces_total", {"worker": "aggregator"}) or 0
            )
            return Result("(b) embedded", frames, faces, wall, cpu, {"all": rss_mib()})


def run_distributed(clips: list[Path], repeat: int, backlog_minutes: float) -> Result:
    with tempfile.TemporaryDirectory() as directory, KafkaServer() as kafka, RedisServer() as redis:
        env = {"MOODLINE_CLASSIFIER_THREADS": "0", "MOODLINE_DETECTOR_THREADS": "0"}
        with Cluster(kafka.url, redis.url, clips[0].parent, Path(directory), partitions=8, env=env) as cluster:
            cluster.start(1)
            cluster.wait_until_up()
            pids = {worker.kind: worker.process.pid for worker in cluster.workers}
            servers = {"kafka": kafka.pid, "redis": redis.pid}
            before = {name: cpu_of_s(pid) for name, pid in (pids | servers).items()}
            specs, wall = specs_for(clips, repeat), time.perf_counter()
            for spec in specs:
                cluster.store.add(spec)
            cluster.wait_until_final(specs, 3600)
            wall = time.perf_counter() - wall
            used = {name: cpu_of_s(pid) - before[name] for name, pid in (pids | servers).items()}
            frames = sum(
                item.high_water_mark.seq
                for item in cluster.store.load([s.stream_id for s in specs])
                if item and item.high_water_mark
            )
            time.sleep(1)
            faces = int(cluster.total("moodline_faces_total:aggregator"))
            memory = {kind: rss_mib(pid) for kind, pid in pids.items()}
            note = "CPU s: " + ", ".join(f"{name} {value:.1f}" for name, value in used.items())
            if backlog_minutes:
                note += "; " + run_backlog(cluster, clips, backlog_minutes)
            return Result("(c) distributed", frames, faces, wall, sum(used[kind] for kind in pids), memory, note)


def run_backlog(cluster: Cluster, clips: list[Path], minutes: float) -> str:
    """Keep a backlog for some minutes; return every worker's memory at start, middle and end."""
    deadline, samples, round_number = time.monotonic() + minutes * 60, [], 0
    while time.monotonic() < deadline:
        specs = [
            StreamSpec(
                stream_id=f"b{round_number}-{number}", url=clips[number % len(clips)].as_uri(), sample_fps="all", recorded_at_us=0
            )
            for number in range(12)
        ]
        for spec in specs:
            cluster.store.add(spec)
        cluster.wait_until_final(specs, 3600)
        samples.append({worker.kind: rss_mib(worker.process.pid) for worker in cluster.running()})
        round_number += 1
    chosen = [samples[0], samples[len(samples) // 2], samples[-1]]
    return f"backlog of {minutes:g} min, MiB at start, middle, end: " + ", ".join(
        f"{kind} {' '.join(f'{sample[kind]:.0f}' for sample in chosen)}" for kind in samples[0]
    )


FER = """
import json, sys, time, cv2
from fer.fer import FER
detector = FER(mtcnn=False)
frames = faces = 0
detector.detect_emotions(cv2.VideoCapture(sys.argv[1]).read()[1])
cpu, wall = time.process_time(), time.perf_counter()
for path in sys.argv[1:]:
    video = cv2.VideoCapture(path)
    while True:
        ok, image = video.read()
        if not ok:
            break
        faces += len(detector.detect_emotions(image))
        frames += 1
print(json.dumps([frames, faces, time.perf_counter() - wall, time.process_time() - cpu]))
"""


def run_fer(python: str, clips: list[Path]) -> Result:
    command = [python, "-c", FER, *map(str, clips)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames, faces, wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return Result("(d) fer library", frames, faces, wall, cpu)


def report(results: list[Result]) -> str:
    base = results[0]
    lines = [
        "| mode | frames | faces | frames/s | faces/s | to (a) | CPU s | frames per CPU s | to (a) | memory, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for result in results:
        rate, per_cpu = result.frames / result.wall_s, result.frames / result.cpu_s
        memory = ", ".join(f"{name} {value:.0f}" for name, value in result.memory_mib.items())
        lines.append(
            f"| {result.mode} | {result.frames} | {result.faces} | {rate:.1f} | {result.faces / result.wall_s:.1f} "
            f"| {rate / (base.frames / base.wall_s):.2f} | {result.cpu_s:.1f} | {per_cpu:.1f} "
            f"| {per_cpu / (base.frames / base.cpu_s):.2f} | {memory} |"
        )
    return "\n".join(lines + [f"\n{result.mode}: {result.note}" for result in results if result.note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--modes", default="aAbcd")
    parser.add_argument("--fer-python", default="")
    parser.add_argument("--backlog-minutes", type=float, default=0.0)
    arguments = parser.parse_args()
    clips = [clip.resolve() for clip in arguments.clips] or [write_scene(Path(tempfile.mkdtemp()) / "scene.mp4")]
    runs: dict[str, Callable[[], Result]] = {
        "a": lambda: run_loop(clips, arguments.repeat),
        "A": lambda: run_loops(clips, arguments.repeat),
        "b": lambda: run_embedded(clips, arguments.repeat),
        "c": lambda: run_distributed(clips, arguments.repeat, arguments.backlog_minutes),
        "d": lambda: run_fer(arguments.fer_python, clips),
    }
    results = []
    for mode, run in runs.items():
        if mode in arguments.modes and (mode != "d" or arguments.fer_python):
            print(f"running ({mode}) …", file=sys.stderr, flush=True)
            results.append(run())
    print(report(results))


if __name__ == "__main__":
    main()
