"""Real camera processes, forked from a real host, with cameras that hang, crash and hoard: each takes down only itself."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from moodline.services.ingest.camera.process.host import CameraHost
from moodline.services.ingest.camera.process.link import CameraGoneError, CameraLink, sentence_of
from moodline.services.ingest.live.records import Opened, Record, Sample, Stats
from moodline.services.ingest.process.fate import EXIT_MEMORY
from moodline.services.ingest.process.host import host_environment
from moodline.shared.streams import FailureReason
from tests.support.camera_doubles import OPENER, make_job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="camera processes are tried on Linux")

CANARY = "c4n4ry-pw"
WORKER = """
import sys, time
from moodline.services.ingest.camera.process.host import CameraHost
from tests.support.camera_doubles import OPENER, make_job
host = CameraHost(OPENER)
links = [host.open(make_job(target)) for target in sys.argv[1:]]
for link in links:
    link.next(10.0)
print(host.pid, *[link.pid for link in links], flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def shared_host() -> Iterator[CameraHost]:
    host = CameraHost(OPENER)
    yield host
    host.close()


@pytest.fixture
def host(shared_host: CameraHost) -> CameraHost:
    """One for all tests that leave it alive."""
    return shared_host


def wait(done: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def read(link: CameraLink, until: Callable[[Record], bool], within_s: float = 20.0) -> list[Record]:
    """All records up to the one that is waited for."""
    deadline_s = time.monotonic() + within_s
    got: list[Record] = []
    while not got or not until(got[-1]):
        record = link.next(deadline_s - time.monotonic())
        assert record is not None, f"did not come; got {got}"
        got.append(record)
    return got


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def open_files(pid: int | str | None) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@contextlib.contextmanager
def opened(host: CameraHost, *targets: str) -> Iterator[list[CameraLink]]:
    links = [host.open(make_job(target)) for target in targets]
    try:
        yield links
    finally:
        for link in links:
            link.close()


def test_a_camera_plays_and_its_process_ends_with_the_link(host: CameraHost) -> None:
    with opened(host, "/steady") as (link,):
        records = read(link, lambda record: isinstance(record, Stats) and record.fps > 0)
        assert records[0] == Opened(codec="h264", width=640, height=360, fps="25")
        samples = [record for record in records if isinstance(record, Sample)]
        assert samples
        assert all(sample.jpeg.startswith(b"\xff\xd8") and (sample.width, sample.height) == (320, 180) for sample in samples)
        link.close()
        link.close()
        wait(lambda: link.has_ended, 0.9)
        assert gone(link.pid)
        with pytest.raises(CameraGoneError, match="closed"):
            link.next(1.0)


def test_a_reader_that_waits_is_woken_by_close(host: CameraHost) -> None:
    with opened(host, "/silent") as (link,):
        read(link, lambda record: isinstance(record, Sample))
        woken = threading.Event()

        def take() -> None:
            with contextlib.suppress(CameraGoneError):
                while True:
                    link.next(60.0)
            woken.set()

        threading.Thread(target=take, daemon=True).start()
        link.close()
        assert woken.wait(5.0)


def test_statistics_come_also_while_no_frame_does(host: CameraHost) -> None:
    with opened(host, "/silent") as (link,):
        read(link, lambda record: isinstance(record, Sample))
        began_s = time.monotonic()
        for _ in range(2):
            read(link, lambda record: isinstance(record, Stats))
        assert time.monotonic() - began_s < 4.0
        assert link.next(0.01) is None


def test_a_camera_that_hangs_with_the_interpreters_lock_is_killed(host: CameraHost) -> None:
    with opened(host, "/hang", "/steady") as (hangs, steady):
        read(steady, lambda record: isinstance(record, Sample))
        wait(lambda: psutil.Process(hangs.pid).status() == psutil.STATUS_SLEEPING)
        read(hangs, lambda record: isinstance(record, Opened))
        hangs.close()
        wait(lambda: hangs.has_ended, 3.0)
        assert gone(hangs.pid)
        read(steady, lambda record: isinstance(record, Sample))


def test_a_crash_of_the_decoder_takes_down_that_camera_alone(host: CameraHost) -> None:
    with opened(host, "/steady", "/crash") as (steady, crashes):
        with pytest.raises(CameraGoneError, match=r"\(signal 11\).*crashes the decoder") as caught:
            read(crashes, lambda _: False)
        assert caught.value.reason == FailureReason.CORRUPT
        for _ in range(3):
            read(steady, lambda record: isinstance(record, Sample))
        assert not gone(steady.pid)


def test_a_camera_that_takes_too_much_memory_ends_with_that_reason(host: CameraHost) -> None:
    began_s = time.monotonic()
    with opened(host, "/hog") as (link,), pytest.raises(CameraGoneError, match="memory limit"):
        read(link, lambda _: False)
    assert time.monotonic() - began_s < 15.0


def test_the_least_memory_that_can_be_set_is_enough(host: CameraHost) -> None:
    link = host.open(make_job("/steady", memory_bytes=128 * 1024 * 1024))
    try:
        records = read(link, lambda record: isinstance(record, Stats) and record.fps > 0)
        assert any(isinstance(record, Sample) and record.jpeg for record in records)
    finally:
        link.close()


def test_a_camera_may_take_what_is_set_and_no_more(host: CameraHost) -> None:
    """The double takes 4 MiB for each of its frames."""
    taken_mib = {}
    for limit_mib in (128, 256):
        link = host.open(make_job("/hog", memory_bytes=limit_mib << 20, sample_fps="all"))
        samples: list[Record] = []

        def note(record: Record, samples: list[Record] = samples) -> bool:
            samples += [record] if isinstance(record, Sample) else []
            return False

        with pytest.raises(CameraGoneError, match="memory limit"):
            read(link, note)
        link.close()
        taken_mib[limit_mib] = 4 * len(samples)
    assert 64 < taken_mib[128] <= 128
    assert 192 < taken_mib[256] <= 256


def test_a_host_that_dies_takes_its_cameras_along_and_is_replaced() -> None:
    host = CameraHost(OPENER)
    try:
        links = [host.open(make_job("/steady")), host.open(make_job("/hang"))]
        read(links[0], lambda record: isinstance(record, Sample))
        former = host.pid
        assert former is not None
        os.kill(former, signal.SIGKILL)
        for link in links:
            with pytest.raises(CameraGoneError, match="started from ended"):
                read(link, lambda _: False)
            wait(lambda pid=link.pid: gone(pid), 3.0)
            link.close()
        again = host.open(make_job("/steady"))
        read(again, lambda record: isinstance(record, Sample))
        assert host.pid != former
        again.close()
        last = host.open(make_job("/hang"))
    finally:
        host.close()
    wait(lambda: gone(again.pid) and gone(last.pid), 1.0)
    last.close()
    assert host.pid is None
    with pytest.raises(CameraGoneError, match="worker ends"):
        host.open(make_job("/steady"))


def test_a_worker_killed_leaves_no_process_behind(repo: Path) -> None:
    command = [sys.executable, "-c", WORKER, "/steady", "/silent", "/hang"]
    with subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pids = [int(word) for word in worker.stdout.readline().split()]
        assert len(pids) == 4
        worker.kill()
    wait(lambda: all(gone(pid) for pid in pids), 3.0)


def test_signals_for_the_worker_do_not_end_the_host(host: CameraHost) -> None:
    with opened(host, "/steady") as (link,):
        read(link, lambda record: isinstance(record, Opened))
        pid = host.pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        read(link, lambda record: isinstance(record, Sample))
        assert host.pid == pid


def test_secrets_are_in_no_arguments_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOODLINE_SECRETS_KEY", CANARY)
    host = CameraHost(OPENER)
    try:
        link = host.open(make_job("/steady", password=CANARY, username=CANARY, host=f"{CANARY}.test"))
        read(link, lambda record: isinstance(record, Sample))
        for pid in (host.pid, link.pid):
            for name in ("cmdline", "environ", "comm"):
                assert CANARY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
            assert b"MOODLINE_" not in Path(f"/proc/{pid}/environ").read_bytes()
        link.close()
    finally:
        host.close()


def test_many_threads_open_at_the_same_time_and_share_one_host() -> None:
    host, links = CameraHost(OPENER), []
    try:
        threads = [threading.Thread(target=lambda: links.append(host.open(make_job("/steady")))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        assert len({link.pid for link in links}) == 8
        assert {psutil.Process(link.pid).ppid() for link in links} == {host.pid}
        for link in links:
            read(link, lambda record: isinstance(record, Sample))
    finally:
        host.close()
    wait(lambda: all(gone(link.pid) for link in links), 1.0)
    for link in links:
        link.close()


def test_a_camera_has_no_files_of_the_host_or_of_other_cameras(host: CameraHost) -> None:
    with opened(host, "/steady", "/steady") as links:
        for link in links:
            read(link, lambda record: isinstance(record, Sample))
        for link in links:
            names = [str(entry.readlink()) for entry in Path(f"/proc/{link.pid}/fd").iterdir()]
            assert sorted(name.partition(":")[0] for name in names) == ["/dev/null"] * 3 + ["socket"]


def test_closing_many_cameras_leaks_nothing(host: CameraHost) -> None:
    with opened(host, "/steady"):
        pass
    files = open_files("self")
    for _ in range(10):
        with opened(host, "/steady") as (link,):
            read(link, lambda record: isinstance(record, Opened))
        wait(lambda link=link: link.has_ended)
    assert open_files("self") <= files
    assert host.pid is not None
    wait(lambda: open_files(host.pid) <= 8)


def test_what_is_said_of_a_process_that_ended_is_one_fixed_sentence() -> None:
    assert "crashes the decoder" in sentence_of(signal.SIGABRT | 0x80)
    assert "out of memory" in sentence_of(signal.SIGKILL)
    assert "memory limit" in sentence_of(EXIT_MEMORY << 8)
    assert "signal 15" in sentence_of(signal.SIGTERM)
    assert "exit code 3" in sentence_of(3 << 8)
    assert "started from ended" in sentence_of(None)


def test_the_hosts_environment_has_neither_settings_nor_many_threads() -> None:
    kept = host_environment({"MOODLINE_BUS_URL": "x", "moodline_x": "y", "PATH": "/bin", "OMP_NUM_THREADS": "8"})
    assert kept["PATH"] == "/bin"
    assert kept["OMP_NUM_THREADS"] == "1"
    assert not any(name.upper().startswith("MOODLINE_") for name in kept)
