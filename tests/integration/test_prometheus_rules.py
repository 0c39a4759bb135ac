"""The rules, by promtool: they are well-formed, every alert fires when it should, and none fires just below."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
RULES = REPO / "deploy" / "prometheus" / "rules" / "moodline.yml"
LIVE = 'worker="ingest",lane="live"'
FILE_FRAMES = 'moodline_frames_total{worker="ingest",lane="file"}'
BUCKETS = ("1.0", "2.0", "2.5", "+Inf")


class Case(NamedTuple):
    """Series by minute, in promtool's notation, that make an alert fire by `at`, and others just below that do not."""

    at: str
    fires: dict[str, str]
    below: dict[str, str]
    labels: tuple[tuple[str, str], ...] = ()


def every_worker_but(*missing: str) -> dict[str, str]:
    kinds = {"ingest", "detector", "classifier", "aggregator"} - set(missing)
    return {f'moodline_worker_up{{worker="{kind}"}}': "1+0x30" for kind in sorted(kinds)}


def latency(below_2_s: int, below_2_5_s: int) -> dict[str, str]:
    counts = dict(zip(BUCKETS, (0, below_2_s, below_2_5_s, 100), strict=True))
    return {f'moodline_end_to_end_seconds_bucket{{lane="live",le="{le}"}}': f"0+{n}x30" for le, n in counts.items()}


STANDSTILL = 'moodline_standstill_seconds{worker="detector",topic="moodline.frames.live.v1",partition="3"}'

CASES = {
    "MoodlinePartitionStandsStill": Case(
        "2m",
        {STANDSTILL: "31+0x30"},
        {STANDSTILL: "30+0x30"},
        (("worker", "detector"), ("topic", "moodline.frames.live.v1"), ("partition", "3")),
    ),
    "MoodlineCameraDown": Case("4m", {"moodline_cameras_down": "1+0x30"}, {"moodline_cameras_down": "0+0x30"}),
    "MoodlineManyCamerasDown": Case(
        "4m",
        {"moodline_cameras_down": "3+0x30", "moodline_cameras": "10+0x30"},
        {"moodline_cameras_down": "2+0x30", "moodline_cameras": "10+0x30"},
    ),
    "MoodlineNoFrames": Case(
        "6m",
        {"moodline_cameras": "2+0x30", "moodline_cameras_down": "1+0x30", f"moodline_frames_total{{{LIVE}}}": "7+0x30"},
        {"moodline_cameras": "2+0x30", "moodline_cameras_down": "1+0x30", f"moodline_frames_total{{{LIVE}}}": "7+1x30"},
    ),
    "MoodlineLiveBacklog": Case(
        "3m",
        {'moodline_lag_seconds{worker="classifier",lane="live"}': "2.1+0x30"},
        {'moodline_lag_seconds{worker="classifier",lane="live"}': "2+0x30"},
        (("worker", "classifier"),),
    ),
    "MoodlineFileBacklog": Case(
        "12m",
        {'moodline_lag_seconds{worker="detector",lane="file"}': "61+0x30"},
        {'moodline_lag_seconds{worker="detector",lane="file"}': "60+0x30"},
        (("worker", "detector"),),
    ),
    "MoodlineFramesSkipped": Case(
        "15m",
        {
            'moodline_frames_skipped_total{worker="detector",lane="live",reason="overloaded"}': "0+6x30",
            f"moodline_frames_total{{{LIVE}}}": "0+100x30",
        },
        {
            'moodline_frames_skipped_total{worker="detector",lane="live",reason="overloaded"}': "0+5x30",
            f"moodline_frames_total{{{LIVE}}}": "0+100x30",
        },
    ),
    "MoodlineSlowToTimeline": Case("15m", latency(94, 100), latency(95, 100)),
    "MoodlineClockSkew": Case(
        "4m",
        {'moodline_clock_offset_seconds{instance="host-2:9100"}': "-0.6+0x30"},
        {'moodline_clock_offset_seconds{instance="host-2:9100"}': "0.5+0x30"},
        (("instance", "host-2:9100"),),
    ),
    "MoodlineTimelineBehind": Case(
        "4m", {"moodline_timeline_behind_seconds": "10.1+0x30"}, {"moodline_timeline_behind_seconds": "10+0x30"}
    ),
    "MoodlineNoThroughput": Case(
        "8m",
        {
            'moodline_frames_total{worker="ingest",lane="file"}': "0+5x30",
            'moodline_timeline_updates_total{result="applied"}': "9x30",
        },
        {
            'moodline_frames_total{worker="ingest",lane="file"}': "0+5x30",
            'moodline_timeline_updates_total{result="applied"}': "0+1x30",
        },
    ),
    "MoodlineDeadLetters": Case(
        "5m",
        {'moodline_dead_letters_total{worker="detector",reason="version"}': "0 0 1 1 1 1"},
        {'moodline_dead_letters_total{worker="detector",reason="version"}': "1 1 1 1 1 1"},
        (("worker", "detector"), ("reason", "version")),
    ),
    "MoodlineReaderCrashes": Case(
        "45m",
        {'moodline_reader_crashes_total{lane="file"}': "0 0 0 0 0 1x45"},
        {'moodline_reader_crashes_total{lane="file"}': "1x50"},
        (("lane", "file"),),
    ),
    "MoodlineModelRefused": Case(
        "5m", {"moodline_model_refusals_total": "0 0 1 1 1 1"}, {"moodline_model_refusals_total": "1 1 1 1 1 1"}
    ),
    "MoodlineStoreTrouble": Case(
        "8m",
        {'moodline_retries_total{worker="aggregator",target="store"}': "0+1x30"},
        {'moodline_retries_total{worker="aggregator",target="store"}': "5+0x30"},
        (("worker", "aggregator"),),
    ),
    "MoodlineBusTrouble": Case(
        "8m",
        {"moodline_bus_errors_total": "0+2x30", 'moodline_retries_total{worker="ingest",target="bus"}': "0+0x30"},
        {"moodline_bus_errors_total": "0+1.5x30", 'moodline_retries_total{worker="ingest",target="bus"}': "0+0x30"},
    ),
    "MoodlineWorkerDown": Case("3m", every_worker_but("detector"), every_worker_but(), (("worker", "detector"),)),
    "MoodlineTargetDown": Case(
        "3m",
        {'up{job="moodline",instance="a:9100"}': "0+0x30"},
        {'up{job="moodline",instance="a:9100"}': "1+0x30"},
        (("job", "moodline"), ("instance", "a:9100")),
    ),
}


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("CI must have promtool: run deploy/local/system-packages.sh")
        pytest.skip("no promtool on the path: run deploy/local/system-packages.sh")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def fired(alert: str, case: Case, series: dict[str, str], folder: Path) -> bool:
    """Say whether the alert fires; promtool shows what fired where that is not what was expected of it."""
    question = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [{"eval_time": case.at, "alertname": alert, "exp_alerts": []}],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(json.dumps(question))
    answer = promtool("test", "rules", str(path))
    if answer.returncode == 0:
        return False
    assert "got:[" in answer.stdout + answer.stderr, answer.stdout + answer.stderr
    for name, value in case.labels:
        assert f'{name}="{value}"' in answer.stdout + answer.stderr
    return True


def test_the_rules_are_well_formed() -> None:
    answer = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_configuration_for_compose_is_well_formed() -> None:
    answer = promtool("check", "config", "--syntax-only", str(REPO / "deploy" / "compose" / "prometheus.yml"))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should(alert: str, tmp_path: Path) -> None:
    assert fired(alert, CASES[alert], CASES[alert].fires, tmp_path)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_does_not_fire_just_below(alert: str, tmp_path: Path) -> None:
    assert not fired(alert, CASES[alert], CASES[alert].below, tmp_path)


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    found = alerts()
    assert found.keys() == CASES.keys()
    for name, rule in found.items():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#alert-{name.lower()}"


def test_an_alert_has_to_last_before_it_is_told(tmp_path: Path) -> None:
    """A camera that is back within its two minutes wakes nobody."""
    case = CASES["MoodlineCameraDown"]._replace(at="3m")
    assert not fired("MoodlineCameraDown", case, {"moodline_cameras_down": "0 0 1 1 0 0"}, tmp_path)


def test_one_restart_of_redis_wakes_nobody(tmp_path: Path) -> None:
    series = {'moodline_retries_total{worker="aggregator",target="store"}': "0 0 0 9 9 9 9 9 9 9 9"}
    for minute in range(3, 11):
        assert not fired("MoodlineStoreTrouble", CASES["MoodlineStoreTrouble"]._replace(at=f"{minute}m"), series, tmp_path)


def test_a_worker_whose_loop_has_ended_is_down_too(tmp_path: Path) -> None:
    series = every_worker_but("detector") | {'moodline_worker_up{worker="detector"}': "0+0x30"}
    assert fired("MoodlineWorkerDown", CASES["MoodlineWorkerDown"], series, tmp_path)
