"""Every expression of every dashboard and rule returns data, asked of a real Prometheus that scrapes a live pipeline."""

import json
import math
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from moodline.services.simulator import CameraSimulator
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.streams import StreamSpec
from tests.support.cluster import Cluster
from tests.support.fixtures import local_server
from tests.support.prometheus import PrometheusServer
from tests.support.servers import KafkaServer, RedisServer, wait_until

REPO = Path(__file__).resolve().parents[2]
RULES = REPO / "deploy" / "prometheus" / "rules" / "moodline.yml"
DASHBOARDS = REPO / "deploy" / "grafana" / "dashboards"
CAMERA, FILE = "cam0", "clip"
FILM = "synthetic://astronaut?seconds=1200&fps=25&faces=2&seed=1"
FILLED_IN = {"$__rate_interval": "15s", "$__range": "1m", "$worker": ".*", "$stream": CAMERA, "$lane": ".*"}
WAIT_S = 60.0


def expressions() -> dict[str, str]:
    """Return all panels' expressions, by dashboard, panel and query."""
    found = {}
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                found[f"{path.stem} / {panel['title']} / {target['refId']}"] = target["expr"]
    return found


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def without_thresholds(expr: str) -> str:
    """Return an alert's expression as what it watches: without the comparisons that are false while all is well."""
    return re.sub(r"\s(>=|==|>|<)\s[\d.]+", " ", expr)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus with the rules, over one worker of each kind that reads a camera and a file."""
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        local_server(KafkaServer) as kafka,
        local_server(RedisServer) as redis,
        CameraSimulator(None, paths=1, size="640x360") as cameras,
        Cluster(kafka.url, redis.url, folder, folder) as cluster,
    ):
        cluster.store.add(StreamSpec(stream_id=CAMERA, url=cameras.url("cam0"), lane=StreamClass.LIVE))
        cluster.store.add(
            StreamSpec(stream_id=FILE, url="synthetic://astronaut?seconds=1200&fps=25&faces=2&seed=1", lane=StreamClass.FILE)
        )
        cluster.start(1)
        cluster.wait_until_up()
        targets = {"moodline": [f"127.0.0.1:{worker.metrics_port}" for worker in cluster.workers]}
        with local_server(lambda: PrometheusServer(targets, [RULES])) as server:
            wait_until(lambda: sum(value for _, value in server.query("moodline_emotions_total")) > 20, WAIT_S, "faces")
            yield server
        assert cluster.crashes == []


def has_data(server: PrometheusServer, expr: str) -> bool:
    return any(math.isfinite(value) for _, value in server.query(expr))


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("name", expressions())
def test_every_panel_returns_data(prometheus: PrometheusServer, name: str) -> None:
    expr = expressions()[name]
    for variable, value in FILLED_IN.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, f"{name} has a variable that is not filled in: {expr}"
    wait_until(lambda: has_data(prometheus, expr), WAIT_S, f"{name}: {expr}")


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("record") or rule["alert"])
def test_every_rule_watches_something_that_is_there(prometheus: PrometheusServer, rule: dict[str, str]) -> None:
    expr = rule.get("record") or without_thresholds(rule["expr"])
    wait_until(lambda: has_data(prometheus, expr), WAIT_S, expr)


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
def test_a_pipeline_that_is_well_fires_no_alert(prometheus: PrometheusServer) -> None:
    wait_until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), WAIT_S, "all rules to be evaluated")
    assert [rule["name"] for rule in prometheus.rules() if rule.get("state") == "firing"] == []
    assert len(prometheus.rules()) == len(rules())


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.slow
def test_the_lag_is_known_before_the_first_batch_is_done(prometheus: PrometheusServer) -> None:
    """What scaling rests on: each kind that reads the bus says how far behind it is, for both lanes."""
    found = {(labels["worker"], labels["lane"]) for labels, _ in prometheus.query("moodline_lag_seconds")}
    assert found == {(kind, lane) for kind in ("detector", "classifier", "aggregator") for lane in ("live", "file")}


def test_the_dashboards_are_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DASHBOARDS.parent))
    built = import_module("build_dashboards")
    model = import_module("dashboard_model")
    files = {path.stem: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert files == {dashboard.uid: model.text(dashboard) for dashboard in built.DASHBOARDS}, "run build_dashboards.py"


def test_dashboards_and_rules_name_only_metrics_that_exist() -> None:
    known = {sample for family in Metrics().registry.collect() for sample in (family.name, f"{family.name}_total")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expr in [*expressions().values(), *(rule["expr"] for rule in rules())]:
        for name in re.findall(r"\b(?:moodline|process)_[a-z0-9_]+", expr):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known, name
        assert set(re.findall(r"\bmoodline:[a-z0-9_:]+", expr)) <= recorded


def test_panels_do_not_overlap_and_names_are_used_once() -> None:
    for path in DASHBOARDS.glob("*.json"):
        model = json.loads(path.read_text())
        taken: set[tuple[int, int]] = set()
        for panel in model["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{path.stem}: {panel['title']}"
            assert place["x"] + place["w"] <= 24
            taken |= cells
        assert model["uid"] == path.stem
