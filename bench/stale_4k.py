"""How old are frames that are shown, when eight 4K H.265 cameras play on a machine that cannot decode them all?

`python -m bench.stale_4k` serves a clip of test pictures as eight cameras, reads each in a process of its own with the product's
own sources, and prints how many frames a second were shown, how many were left out, how old shown ones were at most, and how much
of that the capture time lacks that a camera's process tells. The cameras' clock is this machine's, so the age is true. Takes a
minute or two.
"""

import argparse
import multiprocessing
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moodline.services.ingest.camera.input.backlog import BACKLOG_S
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.input.frames import LiveLimits
from moodline.services.ingest.camera.rtsp.source import open_rtsp
from moodline.services.ingest.live.capture_clock import CaptureClock
from moodline.services.simulator import CameraSimulator
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of


@dataclass
class Seen:
    ages: list[float] = field(default_factory=list)
    untold: list[float] = field(default_factory=list)
    left_out: int = 0
    failure: str = ""


def make_clip(path: Path, size: str, seconds: int) -> None:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
    command += [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "keyint=25:bframes=0:log-level=none",
        "-pix_fmt",
        "yuv420p",
    ]
    subprocess.run([*command, str(path)], check=True)


def watch(port: int, name: str, until_s: float, told: Any) -> None:
    seen, clock = Seen(), CaptureClock(5.0, 0)
    limits = LiveLimits(open_timeout_s=30, read_timeout_s=30, max_pixels=50_000_000)
    try:
        source = open_rtsp(
            CameraAddress("rtsp", "127.0.0.1", port, f"/{name}"), PolicyEgress(net_policy_of("rtsp", True, "", "")), limits
        )
        for frame in source.frames():
            if not frame.is_overloaded and frame.camera_s is not None:
                now_s = time.time()
                seen.ages.append(now_s - frame.camera_s)
                # As a camera's process tells it: what came late by its time stamp is older than its arrival.
                late_s = clock.place(frame.media_s, frame.arrived_s, frame.camera_s).late_us / 1e6
                seen.untold.append(frame.arrived_s - late_s - frame.camera_s)
            if time.monotonic() > until_s:
                break
        seen.left_out = source.counts.overloaded
        source.close()
    except SourceError as error:
        seen.failure = str(error)
    told.put((name, seen))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--cameras", type=int, default=8)
    options.add_argument("--size", default="3840x2160")
    options.add_argument("--seconds", type=float, default=30)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, given.size, 2)
        with CameraSimulator([clip], paths=given.cameras, size=None, copy=True, seconds=2.0) as simulator:
            port = int(simulator.url("cam0").rpartition(":")[2].partition("/")[0])
            until_s, own = time.monotonic() + given.seconds, multiprocessing.get_context("fork")
            told = own.Queue()
            for number in range(given.cameras):
                own.Process(target=watch, args=(port, f"cam{number}", until_s, told), daemon=True).start()
            all_seen = sorted((told.get() for _ in range(given.cameras)), key=lambda item: item[0])
    for name, seen in all_seen:
        oldest_s = max(seen.ages, default=float("nan"))
        shown = len(seen.ages) / given.seconds
        print(
            f"{name}: {shown:5.1f} frames/s shown, {seen.left_out:5} left out, oldest {oldest_s:.2f} s, "
            f"of which the capture time that is told lacks {max(seen.untold, default=0.0):.2f} s {seen.failure}"
        )
    print(f"bound for the backlog: {BACKLOG_S} s")


if __name__ == "__main__":
    main()
