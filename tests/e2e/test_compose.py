"""docker-compose.yml for real: images are built, everything is brought up, and whatever is killed, timelines stay the same."""

import json
import re
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moodline.services.report.moments import iso, to_datetime
from moodline.shared.bus.retention import RETENTION
from moodline.shared.messages import ALL_TOPICS
from tests.support.compose import WORKERS, Compose
from tests.support.reference import RECORDED_AT_US, clip_spec, reference_dump
from tests.support.servers import wait_until

# The first may have to wait for an engine to be made and for images to be built.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CLIP, SAMPLE_FPS = "man-expressions.mp4", "10"
RECORDED_AT = iso(to_datetime(RECORDED_AT_US))
HEAVY = {"av", "cv2", "fastapi", "matplotlib", "nicegui", "openvino", "skimage", "tensorflow"}
"""Packages that only some kinds of processes need."""


@pytest.fixture(scope="module")
def stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    with Compose(f"moodline-test-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("compose")) as running:
        yield running


@pytest.fixture(scope="module")
def reference(clips: Path) -> bytes:
    """One undisturbed embedded run of the clip."""
    return reference_dump(clips, clip_spec("clip", clips / CLIP, SAMPLE_FPS))


@pytest.fixture(scope="module")
def clip_url(stack: Compose, clips: Path) -> str:
    """The clip, uploaded."""
    with stack.client() as client:
        return str(client.upload(clips / CLIP).url)


def start(stack: Compose, stream_id: str, url: str) -> None:
    with stack.client() as client:
        client.add_stream(stream_id, url, sample_fps=SAMPLE_FPS, recorded_at=RECORDED_AT)


def query(stack: Compose, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus."""
    url = f"{stack.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def test_everything_is_up_and_nothing_had_to_be_started_twice(stack: Compose) -> None:
    services = {item.service for item in stack.containers()}
    assert services >= {*WORKERS, "api", "camera", "kafka", "prometheus", "redis"}
    assert [item.service for item in stack.containers() if item.described["RestartCount"]] == []
    setup = stack.containers("setup", ended=True)
    assert [item.state["ExitCode"] for item in setup] == [0]


def test_containers_can_write_nothing_gain_nothing_and_are_not_root(stack: Compose) -> None:
    for item in stack.containers(ended=True):
        assert item.host["ReadonlyRootfs"], item.service
        assert item.host["CapDrop"] == ["ALL"], item.service
        assert not item.host["CapAdd"], item.service
        assert "no-new-privileges:true" in item.host["SecurityOpt"], item.service
        assert item.host["Memory"] > 0, item.service
        assert item.host["NanoCpus"] > 0, item.service
        assert item.host["PidsLimit"] > 0, item.service
        assert not item.host["Privileged"], item.service
    for item in stack.containers():
        processes = stack.processes(item)
        assert processes, item.service
        assert [name for uid, name in processes if uid == 0] == [], item.service
        status, text = stack.execute(item, "touch", "/probe")
        assert status, item.service
        assert "Read-only file system" in text, f"{item.service}: {text}"


def test_only_loopback_is_published(stack: Compose) -> None:
    for item in stack.containers(ended=True):
        bindings = [binding for found in (item.host["PortBindings"] or {}).values() for binding in found]
        assert {binding["HostIp"] for binding in bindings} <= {"127.0.0.1"}, item.service


@pytest.mark.parametrize(
    ("service", "needs"),
    [
        ("ingest", {"av", "cv2"}),
        ("detector", {"cv2", "openvino"}),
        ("classifier", {"openvino"}),
        ("aggregator", set()),
        ("api", {"av", "cv2", "fastapi", "nicegui"}),
    ],
)
def test_an_image_holds_what_its_process_needs_and_no_build_tools(stack: Compose, service: str, needs: set[str]) -> None:
    script = (
        "import importlib.util as u, shutil, sys;"
        "print(*[n for n in sys.argv[1].split(',') if u.find_spec(n)]);"
        "print(*[n for n in ('pip', 'pip3', 'gcc', 'cc', 'make', 'ld', 'curl', 'git') if shutil.which(n)]);"
        "print(*[n for n in ('pip', 'setuptools', 'wheel', 'ensurepip') if u.find_spec(n)])"
    )
    status, text = stack.execute(stack.containers(service)[0], "python", "-c", script, ",".join(sorted(HEAVY)))
    assert status == 0, text
    packages, programs, tools = (set(line.split()) for line in text.split("\n")[:3])
    assert packages == needs
    assert programs == set()
    assert tools == set()


def test_topics_are_as_declared(stack: Compose) -> None:
    """As Kafka's own tool shows them; and `moodline setup --check` agrees."""
    tool = ("/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "localhost:9094", "--describe")
    status, text = stack.execute(stack.containers("kafka")[0], *tool)
    assert status == 0, text
    rows = re.findall(r"Topic: (moodline\S+)\s.*PartitionCount: (\d+)\s.*Configs: (\S*)", text)
    assert {name for name, _, _ in rows} == set(ALL_TOPICS)
    for name, partitions, configs in rows:
        settings = dict(pair.split("=", 1) for pair in configs.split(","))
        assert partitions == "16", name
        assert settings["retention.ms"] == str(RETENTION[name].keep_s * 1000), name
        # Kafka's tool lists -1, which is also the broker's default, only where it was set.
        assert settings.get("retention.bytes", "-1") == str(RETENTION[name].partition_bytes or -1), name
        assert int(settings["max.message.bytes"]) > 4 * 1024 * 1024, name
    assert b"as declared" in stack.run("run", "--rm", "--no-deps", "setup", "setup", "--check")


def test_the_demo_camera_reaches_its_timeline(stack: Compose) -> None:
    def seen() -> bool:
        with stack.client() as client:
            found = client.timeline("demo", start="-30s", resolution="1s")
        return sum(point.faces for point in found.points) > 20

    wait_until(seen, 60.0, "faces of the demo camera in its timeline")
    with stack.client() as client:
        assert client.get_stream("demo").status.state == "live"


def test_the_page_is_served(stack: Compose) -> None:
    with urllib.request.urlopen(f"{stack.api_url}/", timeout=10) as answer:
        assert answer.status == 200
        assert b"Moodline" in answer.read()


def test_a_file_reaches_its_timeline(stack: Compose, clip_url: str, reference: bytes) -> None:
    start(stack, "clip", clip_url)
    stack.wait_until_complete("clip")
    assert stack.dump("clip") == reference
    assert len(reference) > 1000, "an empty timeline would prove nothing"


@pytest.mark.parametrize("service", [*WORKERS, "api", "redis", "kafka"])
def test_whatever_is_killed_the_timeline_is_the_same(stack: Compose, clip_url: str, reference: bytes, service: str) -> None:
    stream_id = f"kill-{service}"
    victim = stack.containers(service)[0]
    start(stack, stream_id, clip_url)
    wait_until(lambda: stack.frames(stream_id)[0] > 20, 60.0, "the first frames in the timeline")
    frames, complete = stack.frames(stream_id)
    assert not complete, f"{frames} frames: it is too late to kill anything"
    stack.kill(victim)
    # How long a container takes to start on a busy machine, a broker's Java above all, says nothing about Moodline.
    stack.wait_until_all_work()
    stack.wait_until_complete(stream_id)
    assert stack.dump(stream_id) == reference


def test_a_camera_is_read_again_when_it_is_back(stack: Compose) -> None:
    """Also Prometheus, which goes on with what it has stored."""
    for service in ("camera", "prometheus"):
        stack.kill(stack.containers(service)[0])
    stack.wait_until_all_work()
    with stack.client() as client:
        before = client.get_stream("demo").progress.frames

    def reads_again() -> bool:
        with stack.client() as client:
            stream = client.get_stream("demo")
        return stream.status.state == "live" and stream.progress.frames > before + 10

    wait_until(reads_again, 60.0, "the camera's stream")
    assert query(stack, 'count_over_time(moodline_worker_up{worker="ingest"}[10m]) > 1'), "its samples are lost"


def test_prometheus_scrapes_every_process(stack: Compose) -> None:
    wanted = {*WORKERS, "api"}
    wait_until(lambda: {item["metric"]["kind"] for item in query(stack, "up == 1")} >= wanted, 30.0, "all kinds in Prometheus")
    rules = f"{stack.prometheus_url}/api/v1/rules"
    with urllib.request.urlopen(rules, timeout=10) as answer:
        groups = json.load(answer)["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert groups, "the rules of deploy/prometheus are not loaded"


def test_more_classifiers_share_the_work(stack: Compose, clip_url: str, reference: bytes) -> None:
    stack.up("--no-recreate", "--scale", "classifier=4")
    assert len(stack.containers("classifier")) == 4
    wait_until(lambda: len(query(stack, 'up{kind="classifier"} == 1')) == 4, 60.0, "all classifiers in Prometheus")
    streams = [f"scaled-{number}" for number in range(5)]
    for stream_id in streams:
        start(stack, stream_id, clip_url)
    for stream_id in streams:
        stack.wait_until_complete(stream_id, 180.0)
    assert [stream_id for stream_id in streams if stack.dump(stream_id) != reference] == []
    received = 'sum by (instance) (moodline_messages_received_total{worker="classifier", topic="moodline.faces.file.v1"}) > 0'
    wait_until(lambda: len(query(stack, received)) >= 2, 30.0, "classifiers that had work")
