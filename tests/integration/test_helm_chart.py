"""The Helm chart, offline: it lints, renders and fits Kubernetes' own schemas, and what it renders is as safe as it says."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from moodline.services.runtime.bootstrap import WORKERS
from tests.conftest import REPO

CHART = REPO / "deploy/kubernetes/moodline"
VALUES = {path.stem: path for path in sorted((REPO / "deploy/kubernetes/values").glob("*.yaml"))}
COMPONENTS = (*WORKERS, "api")
SECRET_VARIABLES = {
    "MOODLINE_BUS_URL",
    "MOODLINE_STORE_URL",
    "MOODLINE_SECRETS_KEY",
    "MOODLINE_API_KEY",
    "MOODLINE_TRACING_HEADERS",
}
OPERATORS = ("keda.sh/", "monitoring.coreos.com/")
"""API groups of operators: their objects are no part of Kubernetes' schemas and are checked here one by one."""

Object = dict[str, Any]


def tool(name: str) -> str:
    """Return a tool that deploy/local/kubernetes-tools.sh builds; skip, or in CI fail, where it is missing."""
    local = REPO / ".local/bin" / name
    found = str(local) if local.exists() else shutil.which(name)
    if found is None:
        reason = f"no {name}: run deploy/local/kubernetes-tools.sh"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=60, check=False)


def render_text(values: str, *settings: str, version: str = "1.34.0") -> str:
    flags = [part for setting in settings for part in ("--set-json", setting)]
    result = helm("template", "moodline", str(CHART), "--kube-version", version, "--values", str(VALUES[values]), *flags)
    assert result.returncode == 0, result.stderr
    return result.stdout


def render(values: str, *settings: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(render_text(values, *settings)) if found]


def refused(values: str, *settings: str) -> str:
    flags = [part for setting in settings for part in ("--set-json", setting)]
    result = helm("template", "moodline", str(CHART), "--kube-version", "1.34.0", "--values", str(VALUES[values]), *flags)
    assert result.returncode != 0, f"{settings} should be refused"
    return result.stderr


@pytest.fixture(scope="module", params=sorted(VALUES))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return render(request.param)


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and pod template of everything that runs pods."""
    for kind in ("Deployment", "Job"):
        for name, found in of_kind(objects, kind).items():
            yield name, found["spec"]["template"]


def environment(template: Object, objects: list[Object]) -> dict[str, Object]:
    """Return all variables of a pod's one container by name, ConfigMaps included."""
    (container,) = template["spec"]["containers"]
    maps = of_kind(objects, "ConfigMap")
    variables: dict[str, Object] = {}
    for source in container.get("envFrom", []):
        variables |= {name: {"value": value} for name, value in maps[source["configMapRef"]["name"]]["data"].items()}
    return variables | {entry["name"]: entry for entry in container["env"]}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    matches = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return matches and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []) if rule["operator"] == "In"
    )


def test_lints_strictly() -> None:
    for path in VALUES.values():
        result = helm("lint", "--strict", str(CHART), "--values", str(path))
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.34", "1.37"])
def test_fits_the_schemas_of_kubernetes(objects: list[Object], version: str) -> None:
    own = [found for found in objects if not found["apiVersion"].startswith(OPERATORS)]
    assert len(own) > 20
    for found in own:
        kubernetes_validate.validate(found, version, strict=True)


def test_kubeconform_finds_nothing_either(tmp_path: Path, repo: Path) -> None:
    """Operators' objects included, by schemas of what the chart uses of them."""
    shipped = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.34.0-local-strict"
    for path in shipped.glob("*.json"):
        # They name each other by an address that is none here.
        text = re.sub(r',\s*"\$id": "https://[^"]*"', "", path.read_text())
        (tmp_path / path.name).write_text(text.replace('"/api/_definitions.json#', '"_definitions.json#'))
    locations = [
        f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json" for folder in (tmp_path, repo / "deploy/kubernetes/schemas")
    ]
    flags = [part for location in locations for part in ("-schema-location", location)]
    for name in VALUES:
        rendered = tmp_path / f"{name}.yaml"
        rendered.write_text(render_text(name))
        command = [tool("kubeconform"), "-strict", "-summary", "-output", "json", *flags, str(rendered)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        summary = json.loads(result.stdout)["summary"]
        assert summary["valid"] > 20
        assert summary["invalid"] == summary["errors"] == summary["skipped"] == 0


def test_every_component_has_what_it_needs(objects: list[Object]) -> None:
    deployments = of_kind(objects, "Deployment")
    assert sorted(deployments) == sorted(f"moodline-{component}" for component in COMPONENTS)
    for component in COMPONENTS:
        spec = deployments[f"moodline-{component}"]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["command"] == ["moodline", component]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert spec["topologySpreadConstraints"]
        # A batch, a flush and leaving the group take seconds; a worker must never be cut off in between.
        assert spec["terminationGracePeriodSeconds"] >= 30
    (job,) = of_kind(objects, "Job").values()
    assert job["spec"]["template"]["spec"]["containers"][0]["command"] == ["moodline", "setup"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_every_container_is_locked_down(objects: list[Object]) -> None:
    for name, template in pods(objects):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            assert flag not in spec, name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_probes_ask_a_port_that_is_there(objects: list[Object]) -> None:
    for name, deployment in of_kind(objects, "Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        variables = environment(deployment["spec"]["template"], objects)
        listens = variables["MOODLINE_API_PORT" if name.endswith("-api") else "MOODLINE_WORKER_METRICS_PORT"]["value"]
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            asked = container[probe]["httpGet"]
            assert asked["path"] == path
            assert ports[asked["port"]] == int(listens)


def test_every_variable_is_a_documented_setting(objects: list[Object], repo: Path) -> None:
    documented = set(re.findall(r"`(MOODLINE_[A-Z0-9_]+)`", (repo / "docs/settings.md").read_text()))
    for name, template in pods(objects):
        used = {variable for variable in environment(template, objects) if variable.startswith("MOODLINE_")}
        assert used, name
        assert used <= documented, name


def test_no_secret_is_anywhere_but_in_a_secret() -> None:
    words = {"busUrl": "kafka://k:9092?sasl.password=bus-word", "storeUrl": "redis://u:store-word@r/0", "sealingKey": "seal-word"}
    objects = render("minimal", *(f"secrets.{name}={json.dumps(value)}" for name, value in words.items()))
    for found in objects:
        if found["kind"] != "Secret":
            assert not re.search("bus-word|store-word|seal-word", json.dumps(found)), found["metadata"]["name"]
    for name, template in pods(objects):
        for variable, entry in environment(template, objects).items():
            if variable in SECRET_VARIABLES:
                assert "secretKeyRef" in entry["valueFrom"], f"{name} {variable}"


def test_only_api_and_ingest_get_the_sealing_key(objects: list[Object]) -> None:
    holders = {name for name, template in pods(objects) if "MOODLINE_SECRETS_KEY" in environment(template, objects)}
    assert holders == {"moodline-api", "moodline-ingest"}


def test_with_a_secret_of_ones_own_the_chart_makes_none() -> None:
    objects = render("production")
    assert of_kind(objects, "Secret") == {}
    for _, template in pods(objects):
        url = environment(template, objects)["MOODLINE_BUS_URL"]["valueFrom"]["secretKeyRef"]
        assert url == {"name": "moodline-secrets", "key": "MOODLINE_BUS_URL"}


def test_the_setup_job_needs_nothing_that_comes_after_it() -> None:
    objects = render("minimal")
    (job,) = of_kind(objects, "Job").values()
    template = job["spec"]["template"]
    assert not template["spec"]["containers"][0].get("envFrom")
    secret = of_kind(objects, "Secret")[environment(template, objects)["MOODLINE_BUS_URL"]["valueFrom"]["secretKeyRef"]["name"]]
    annotations = secret["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(annotations["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert environment(template, objects)["MOODLINE_BUS_PARTITIONS"]["value"] == "16"


def test_selectors_meet_exactly_their_pods(objects: list[Object]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects)}
    deployments = of_kind(objects, "Deployment")
    for name, deployment in deployments.items():
        selector = deployment["spec"]["selector"]
        assert [other for other in labels if selects(selector, labels[other])] == [name]
        budget = of_kind(objects, "PodDisruptionBudget")[name]
        assert budget["spec"]["selector"] == selector
        for rule in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert rule["labelSelector"] == selector
    (service,) = of_kind(objects, "Service").values()
    assert [name for name in labels if selects({"matchLabels": service["spec"]["selector"]}, labels[name])] == ["moodline-api"]


def test_the_network_is_closed_but_for_what_is_needed(objects: list[Object]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects)}

    def reaching(name: str, direction: str) -> set[tuple[str, object, str]]:
        """Return (policy, port, protocol) of all that a pod may do in a direction."""
        return {
            (policy, port["port"], port["protocol"])
            for policy, found in policies.items()
            if selects(found["spec"]["podSelector"], labels[name])
            for rule in found["spec"].get(direction, [])
            for port in rule["ports"]
        }

    deny = policies["moodline-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    assert all(selects(deny["podSelector"], labels[name]) for name in labels)
    for name in ("moodline-detector", "moodline-classifier", "moodline-aggregator", "moodline-setup"):
        assert {policy for policy, *_ in reaching(name, "egress")} == {"moodline-backends"}
        assert reaching(name, "ingress") == {("moodline-metrics", "metrics", "TCP")}
    assert {policy for policy, *_ in reaching("moodline-ingest", "egress")} == {"moodline-backends", "moodline-cameras"}
    assert {policy for policy, *_ in reaching("moodline-api", "egress")} == {"moodline-backends", "moodline-api"}
    assert ("moodline-api", "http", "TCP") in reaching("moodline-api", "ingress")


def test_peers_are_those_that_the_values_name() -> None:
    policies = of_kind(render("production"), "NetworkPolicy")
    kafka = policies["moodline-backends"]["spec"]["egress"][1]
    assert kafka == {
        "ports": [{"port": 9093, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kafka"}}}],
    }
    cameras = policies["moodline-cameras"]["spec"]
    assert cameras["ingress"] == [
        {"ports": [{"port": 1024, "endPort": 65535, "protocol": "UDP"}], "from": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]}
    ]
    off = render("production", "networkPolicy.enabled=false")
    assert of_kind(off, "NetworkPolicy") == {}


def test_scaling_goes_by_lag_in_seconds_and_by_streams(repo: Path) -> None:
    objects = render("production")
    metrics = set(re.findall(r"`(moodline_[a-z_]+)`", (repo / "docs/metrics.md").read_text()))
    scaled = of_kind(objects, "ScaledObject")
    assert sorted(scaled) == ["moodline-classifier", "moodline-detector", "moodline-ingest"]
    for name, found in scaled.items():
        spec = found["spec"]
        assert spec["scaleTargetRef"] == {"name": name}
        assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] <= 64
        # The scaler owns the number: a Deployment that named one would undo it at every upgrade.
        assert "replicas" not in of_kind(objects, "Deployment")[name]["spec"]
        for trigger in spec["triggers"]:
            assert trigger["type"] == "prometheus"
            assert float(trigger["metadata"]["threshold"]) > 0
            query = trigger["metadata"]["query"]
            assert 'namespace="video"' in query
            named = {re.sub("_(sum|count|bucket)$", "", metric) for metric in re.findall(r"moodline_[a-z_]+", query)}
            assert named <= metrics, f"{name}: {named - metrics} is in no documentation"
    triggers = {trigger["name"]: trigger for trigger in scaled["moodline-classifier"]["spec"]["triggers"]}
    assert triggers.keys() == {"lag-seconds", "file-lag-seconds", "busy-percent"}
    assert (
        triggers["lag-seconds"]["metadata"]["query"]
        == 'max(moodline_lag_seconds{worker="classifier",namespace="video",lane="live"})'
    )
    # A backlog of files may be old; cameras' frames may not.
    assert (
        float(triggers["lag-seconds"]["metadata"]["threshold"]) < 2 < float(triggers["file-lag-seconds"]["metadata"]["threshold"])
    )
    assert {trigger["metricType"] for trigger in triggers.values()} == {"Value"}
    assert scaled["moodline-ingest"]["spec"]["triggers"][0]["metricType"] == "AverageValue"
    assert of_kind(objects, "Deployment")["moodline-aggregator"]["spec"]["replicas"] == 2


def test_traces_open_the_network_and_keep_their_token_secret() -> None:
    off, on = render("minimal"), render("minimal", 'tracing.endpoint="http://collector:4318/v1/traces"', "tracing.ratio=0.01")
    for objects, expected in ((off, {53, 9092, 6379}), (on, {53, 9092, 6379, 4318})):
        rules = of_kind(objects, "NetworkPolicy")["moodline-backends"]["spec"]["egress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == expected
    for name, deployment in of_kind(on, "Deployment").items():
        variables = environment(deployment["spec"]["template"], on)
        assert variables["MOODLINE_TRACING_ENDPOINT"]["value"] == "http://collector:4318/v1/traces", name
        assert variables["MOODLINE_TRACING_RATIO"]["value"] == "0.01", name
        token = variables["MOODLINE_TRACING_HEADERS"]["valueFrom"]["secretKeyRef"]
        assert token == {"name": "moodline", "key": "MOODLINE_TRACING_HEADERS", "optional": True}, name
    assert "TRACING" not in json.dumps(of_kind(off, "Deployment"))


def test_monitors_find_the_ports() -> None:
    objects = render("production")
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects)}
    monitors = of_kind(objects, "PodMonitor")
    seen = set()
    for found in monitors.values():
        (endpoint,) = found["spec"]["podMetricsEndpoints"]
        for name, deployment in of_kind(objects, "Deployment").items():
            if selects(found["spec"]["selector"], labels[name]):
                seen.add(name)
                ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
                assert endpoint["port"] in {port["name"] for port in ports}
        assert found["metadata"]["labels"]["release"] == "prometheus"
    assert seen == {f"moodline-{component}" for component in COMPONENTS}
    key = monitors["moodline-api"]["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
    assert key == {"name": "moodline-prometheus-key", "key": "MOODLINE_API_KEY"}


def test_a_gpu_brings_its_image_engine_and_no_surge() -> None:
    objects = render("production")
    spec = of_kind(objects, "Deployment")["moodline-classifier"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.org/video/moodline/classifier-gpu:0.2.0"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert environment(spec["template"], objects)["MOODLINE_CLASSIFIER_ENGINE"]["value"] == "tensorflow"
    on_cpu = of_kind(render("minimal"), "Deployment")["moodline-classifier"]["spec"]["template"]["spec"]["containers"][0]
    assert on_cpu["image"] == "moodline/classifier:0.2.0"
    assert "nvidia.com/gpu" not in on_cpu["resources"]["limits"]


def test_images_are_targets_of_the_dockerfile(repo: Path) -> None:
    targets = set(re.findall(r"^FROM .* AS ([a-z-]+)$", (repo / "deploy/Dockerfile").read_text(), re.MULTILINE))
    for values in VALUES:
        for name, template in pods(render(values)):
            image = template["spec"]["containers"][0]["image"]
            assert image.rpartition("/")[2].partition(":")[0] in targets, name


def test_files_need_a_volume_that_is_shared() -> None:
    with_claim, without = (
        {name: environment(template, objects) for name, template in pods(objects) if name in {"moodline-api", "moodline-ingest"}}
        for objects in (render("production"), render("minimal"))
    )
    for name in with_claim:
        assert with_claim[name]["MOODLINE_INGEST_SCHEMES"]["value"].startswith("file,")
        assert "file" not in without[name]["MOODLINE_INGEST_SCHEMES"]["value"].split(",")


def test_a_components_setting_is_above_that_of_all() -> None:
    objects = render("minimal", 'settings.MOODLINE_LOG_LEVEL="info"', 'ingest.settings={"MOODLINE_LOG_LEVEL":"debug"}')
    maps = of_kind(objects, "ConfigMap")
    assert maps["moodline-ingest"]["data"]["MOODLINE_LOG_LEVEL"] == "debug"
    assert maps["moodline-api"]["data"]["MOODLINE_LOG_LEVEL"] == "info"


@pytest.mark.parametrize(
    ("values", "setting", "says"),
    [
        ("minimal", 'settings.MOODLINE_STORE_URL="redis://r"', "MOODLINE_STORE_URL"),
        ("minimal", 'settings.MOODLINE_TRACING_HEADERS="token=word"', "MOODLINE_TRACING_HEADERS"),
        ("minimal", 'tracing.endpoint="collector"', "endpoint"),
        ("minimal", 'secrets.busUrl="localhost:9092"', "busUrl"),
        ("minimal", 'secrets.busUrl="kafka://user:word@host"', "busUrl"),
        ("minimal", 'secrets.storeUrl=""', "existingSecret, or give busUrl"),
        ("minimal", 'secrets.existingSecret="other"', "exclude each other"),
        ("minimal", "detector.replicas=-1", "replicas"),
        ("minimal", "detector.replica=3", "replica"),
        ("minimal", "podSecurityContext.runAsUser=0", "runAsUser"),
        ("minimal", "ingress.enabled=true", "ingress: host"),
        ("minimal", "keda.enabled=true", "prometheusUrl is missing"),
        ("minimal", "networkPolicy.kafka.ports=[]", "ports"),
        ("minimal", "api.terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("production", "keda.detector.maxReplicas=65", "more workers than the 64 partitions"),
        ("production", "keda.ingest.minReplicas=65", "minReplicas is above maxReplicas"),
        ("production", "keda.classifier.lagSeconds=0", "lagSeconds"),
        ("production", "classifier.gpu.count=0", "count"),
        ("production", 'service.type="Public"', "type"),
    ],
)
def test_a_bad_value_is_refused_with_a_word_why(values: str, setting: str, says: str) -> None:
    assert says in refused(values, setting)


def test_two_releases_in_one_namespace_do_not_meet() -> None:
    first = helm("template", "moodline", str(CHART), "--kube-version", "1.34.0", "--values", str(VALUES["minimal"])).stdout
    second = helm("template", "night", str(CHART), "--kube-version", "1.34.0", "--values", str(VALUES["minimal"])).stdout
    names = [
        {(found["kind"], found["metadata"]["name"]) for found in yaml.safe_load_all(text) if found} for text in (first, second)
    ]
    assert names[0].isdisjoint(names[1])
    assert ("Deployment", "night-moodline-api") in names[1]
