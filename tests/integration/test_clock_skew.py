"""Two processes whose clocks differ by ten minutes: a frame of one is as old to the other as it is."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from moodline.shared.clock import SystemClock
from moodline.shared.clock_offset import ClockWatch
from moodline.shared.messages import Frame, StreamClass, encode
from moodline.shared.metrics import Metrics
from moodline.shared.store import Retention, open_store
from tests.support.fixtures import Server

RETENTION = Retention({1: 86_400})
AHEAD_S = 600

_SKEWED = """
import json, sys, time
from moodline.services.detector.stage import DetectorStage
from moodline.shared.bus import Position
from moodline.shared.clock import SystemClock
from moodline.shared.clock_offset import ClockWatch
from moodline.shared.messages import decode
from moodline.shared.metrics import Metrics
from moodline.shared.settings import DetectorSettings
from moodline.shared.pipeline.stage import Received
from moodline.shared.store import Retention, open_store

store, metrics = open_store(sys.argv[1], Retention({1: 86_400})), Metrics()
watch = ClockWatch(store.time_s, SystemClock(), metrics)
watch.poll()
stage = DetectorStage(lambda: None, DetectorSettings(threads=1))
print("ready", flush=True)
frame = decode(bytes.fromhex(sys.stdin.readline()))
answers = {}
for name, clock in (("common", watch.clock), ("machine", SystemClock())):
    (sent,) = stage.process([Received(frame, Position("moodline.frames.live.v1", 0, 0))], clock.now_s())
    answers[name] = sent.message.skip
answers["offset_s"] = metrics.registry.get_sample_value("moodline_clock_offset_seconds")
print(json.dumps(answers), flush=True)
stage.close()
store.close()
"""


@pytest.mark.redis
@pytest.mark.parametrize("ahead_s", [AHEAD_S, -AHEAD_S])
def test_a_frame_crosses_to_a_host_whose_clock_is_ten_minutes_off(redis_server: Server, ahead_s: int) -> None:
    faketime = shutil.which("faketime")
    if faketime is None:
        assert not os.environ.get("CI"), "faketime is missing: run deploy/local/system-packages.sh"
        pytest.skip("no faketime on the path")
    store = open_store(redis_server.url, RETENTION)
    watch = ClockWatch(store.time_s, SystemClock(), Metrics())
    watch.poll()
    command = [faketime, "-m", "-f", f"{ahead_s:+d}s", sys.executable, "-c", _SKEWED, redis_server.url]
    environment = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write(_frame(watch.clock.now_s()).hex() + "\n")
        other.stdin.flush()
        answers = json.loads(other.stdout.readline())
    store.close()
    assert abs(answers["offset_s"] - ahead_s) < 0.5
    # What is admitted has no picture in it here. By the machine's own clock a live frame would be thrown away.
    assert answers["common"] == "corrupt"
    assert answers["machine"] == ("expired" if ahead_s > 0 else "corrupt")


def _frame(captured_s: float) -> bytes:
    return encode(
        Frame(
            stream_id="cam",
            epoch=1,
            seq=0,
            event_time_us=0,
            captured_at_us=int(captured_s * 1e6),
            lane=StreamClass.LIVE,
            width=1,
            height=1,
            jpeg=b"no picture",
        )
    )
