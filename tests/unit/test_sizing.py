"""The calculator of docs/scaling.md: its arithmetic by hand, and the page's table is what it prints."""

import re
from pathlib import Path

import pytest

from bench.sizing import Load, main, needs, parse, streams_memory_bytes
from moodline.shared.bus.retention import RETENTION
from moodline.shared.messages import PipelineStep, StreamClass, topic
from moodline.shared.settings import StoreSettings


def amounts(load: Load, store: StoreSettings | None = None) -> dict[str, float]:
    return {need.part: need.amount for need in needs(load, store or StoreSettings())}


def test_cores_are_work_over_what_a_core_may_do() -> None:
    found = amounts(Load(cameras=100, fps=10, faces=2, detect_ms=6, classify_per_s=4000, decode_core=0.03, busy=0.5))
    assert found["frames analysed"] == 1000
    assert found["ingest, CPU"] == pytest.approx(100 * 0.03 / 0.5)
    assert found["detector, CPU"] == pytest.approx(1000 * 0.006 / 0.5)
    assert found["classifier, CPU"] == pytest.approx(2000 / 4000 / 0.5)


def test_bytes_on_the_bus_are_frames_crops_and_results() -> None:
    found = amounts(Load(cameras=100, fps=10, faces=2, frame_kb=50, replicas=2, broker_mb_s=20))
    taken_mb = (1000 * 50_000 + (1000 * 130 + 2000 * 2344) + (1000 * 150 + 2000 * 60)) / 1e6
    assert found["Kafka, taken in"] == pytest.approx(taken_mb)
    assert found["Kafka, brokers"] == 6  # 55 MB/s twice, by 20
    assert found["Kafka, given out"] == pytest.approx(2 * taken_mb)


def test_everything_grows_with_cameras_and_nothing_else_does() -> None:
    one, ten = amounts(Load(cameras=1000)), amounts(Load(cameras=10_000))
    for part in one:
        if part not in {"partitions", "Kafka, brokers", "Kafka, disks"}:
            assert ten[part] == pytest.approx(10 * one[part]), part
    assert ten["partitions"] >= one["partitions"]
    assert int(ten["partitions"]).bit_count() == 1, "a power of 2, so that doubling later is even"


def test_disks_hold_what_the_topics_keep_and_no_more() -> None:
    few = Load(cameras=1, fps=1, faces=0, frame_kb=10, replicas=3)
    bytes_kept = 10_000 * 600 + 130 * 86_400 + 150 * 86_400
    assert amounts(few)["Kafka, disks"] == pytest.approx(3 * bytes_kept / 1e9)
    many = amounts(Load(cameras=10_000, replicas=1))
    topics = 2 * many["partitions"] * RETENTION[topic(PipelineStep.FRAMES, StreamClass.LIVE)].partition_bytes
    results = 50_000 * (150 + 60) * 86_400
    assert many["Kafka, disks"] == pytest.approx((topics + results) / 1e9)


def test_a_stream_keeps_the_buckets_that_its_settings_say() -> None:
    store = StoreSettings(
        retention_1s_s=100, retention_10s_s=1000, retention_1min_s=6000, retention_10min_s=60_000, retention_1h_s=360_000
    )
    assert streams_memory_bytes(Load(bucket_bytes=10, faces=0), store) == 5 * 100 * 10
    assert streams_memory_bytes(Load(bucket_bytes=10, faces=2), store) == (5 + 2) * 100 * 10


def test_the_command_line_sets_every_figure() -> None:
    load, store = parse(["--cameras", "7", "--detect-ms", "3.5", "--retention-1s-s", "3600"])
    assert (load.cameras, load.detect_ms, store.retention_1s_s) == (7, 3.5, 3600)


@pytest.mark.parametrize("arguments", [["--cameras", "0"], ["--busy", "-1"], ["--fps", "many"]])
def test_figures_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_the_page_shows_what_it_prints(repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repo / "docs/scaling.md").read_text()
    blocks = re.findall(r"`python -m bench\.sizing([^`]*)`:\n\n((?:\|.*\n)+)", page)
    assert blocks, "docs/scaling.md shows no answer of the calculator"
    for arguments, table in blocks:
        monkeypatch.setattr("sys.argv", ["sizing", *arguments.split()])
        main()
        assert capsys.readouterr().out == table
