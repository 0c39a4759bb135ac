"""Grafana's files are what Grafana of the version in `.env` knows: checked against the JSON schema of its own types."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.api import ApiWorld, smiling

GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").rglob("*.json"))
SCHEMA = json.loads((GRAFANA / "schema" / "grafana.json").read_text())
HISTORY = json.loads((GRAFANA / "dashboards" / "history" / "moodline-history.json").read_text())


def complaints(dashboard: dict[str, Any]) -> list[str]:
    """Return what the schema says of a dashboard, and of the options of each of its panels."""

    def said(value: Any, schema: dict[str, Any], place: str) -> list[str]:
        return [
            f"{place}{error.json_path[1:]}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(value)
        ]

    found = said(dashboard, SCHEMA["dashboard"], "")
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        known = SCHEMA["panels"][panel["type"]]
        found += said(panel.get("options", {}), known["options"], panel["title"])
        found += said(panel["fieldConfig"]["defaults"].get("custom", {}), known["custom"], panel["title"])
    return found


def test_the_schema_is_of_the_version_that_is_run(repo: Path) -> None:
    assert f"GRAFANA_IMAGE=grafana/grafana:{SCHEMA['version']}\n" in (repo / ".env").read_text(), "run build-schema.sh"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_grafana_knows_every_field(path: Path) -> None:
    assert complaints(json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one.update(stlye="dark"),
        lambda one: one["panels"][1].update(colour="red"),
        lambda one: one["panels"][1]["options"].update(legned={}),
        lambda one: one["panels"][1]["fieldConfig"]["defaults"]["custom"].update(fillOpactiy=5),
        lambda one: one["panels"][1]["fieldConfig"]["defaults"]["custom"].update(fillOpacity="thick"),
        lambda one: one.update(schemaVersion="old"),
    ],
)
def test_an_unknown_field_would_be_noticed(spoil: Any) -> None:
    spoiled = copy.deepcopy(HISTORY)
    assert spoiled["panels"][1]["type"] == "timeseries"
    spoil(spoiled)
    assert complaints(spoiled)


def test_the_history_asks_what_the_api_answers(tmp_path: Path) -> None:
    queries = [target for panel in HISTORY["panels"] for target in panel.get("targets", ())]
    queries += [variable["query"]["infinityQuery"] for variable in HISTORY["templating"]["list"]]
    assert len(queries) > 5
    with ApiWorld(tmp_path) as world:
        world.add("Front_Door")
        world.play("Front_Door", [smiling()] * 60)
        given = {"stream": "Front_Door", "__from": "1777636800000", "__to": "1777636860000"}
        for query in queries:
            asked = {each["key"]: filled(each["value"], given) for each in query["url_options"]["params"]}
            answer = world.http.get(filled(query["url"], given), params=asked)
            assert answer.status_code == 200, answer.text
            rows = answer.json()[query["root_selector"]]
            assert len(rows) in (1, 60)
            for column in query["columns"]:
                value = rows[0]
                for part in column["selector"].split("."):
                    value = value[part]
                assert isinstance(value, (int, float) if column["type"] == "number" else str), column


def filled(text: str, given: dict[str, str]) -> str:
    done = re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], text)
    assert "$" not in done
    return done


def test_dashboards_name_data_sources_that_are_provisioned() -> None:
    provisioned = {
        each["uid"]: each["type"]
        for path in (GRAFANA / "provisioning" / "datasources").glob("*.yml")
        for each in yaml.safe_load(path.read_text())["datasources"]
    }
    named = {target["datasource"]["uid"] for panel in HISTORY["panels"] for target in panel.get("targets", ())}
    assert named == {"moodline-api"}
    assert provisioned["moodline-api"] == HISTORY["panels"][1]["datasource"]["type"]
