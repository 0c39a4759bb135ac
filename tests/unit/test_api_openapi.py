"""The description of the API is true."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from moodline.services.api.problems import PROBLEMS
from tests.support.api import ApiWorld

MODULES = (
    "moodline.services.api.models",
    "moodline.services.api.errors",
    "moodline.services.api.health",
    "moodline.services.api.keys",
    "moodline.services.api.audit",
    "moodline.services.api.classify",
    "moodline.services.api.faces",
    "moodline.services.api.alert_models",
    "moodline.services.api.compare",
    "moodline.services.api.push",
    "moodline.services.api.uploads",
    "moodline.services.report.document",
    "moodline.services.report.tracks",
)
MODELS = [
    model
    for module in map(importlib.import_module, MODULES)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
    if not model.__name__.startswith("_") and not model.__name__.endswith("Parameters")
]


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with ApiWorld(tmp_path_factory.mktemp("openapi")) as world:
        yield world.http.get("/openapi.json").json()


def operations(openapi: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{verb.upper()} {path}", one) for path, verbs in openapi["paths"].items() for verb, one in verbs.items()]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_has_examples_that_are_valid_and_complete(model: type[BaseModel]) -> None:
    examples = model.model_json_schema()["examples"]
    assert examples
    is_answer = model.__name__.endswith("Answer") or not model.__name__.startswith(("New", "StreamChange"))
    for example in examples:
        parsed = model.model_validate(example)
        if model.__name__ in ("NewSession", "NewRule", "RuleChange", "DryRun"):
            continue  # what is secret does not come back, and a rule inside is completed
        said = parsed.model_dump(mode="json", by_alias=True)
        assert {key: said[key] for key in example} == example, "what comes back is what was written"
        if is_answer:
            assert set(example) == set(said), "an answer's example lacks nothing"


def test_the_examples_are_in_the_description(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"]
    described = {model.__name__ for model in MODELS} & set(schemas)
    assert len(described) > 14
    assert [name for name in described if "examples" not in schemas[name]] == []


def test_every_route_says_what_it_does(openapi: dict[str, Any]) -> None:
    assert len(operations(openapi)) > 30
    for name, operation in operations(openapi):
        assert operation["summary"], name
        assert operation["description"], name
        for parameter in operation.get("parameters", []):
            assert "description" in parameter or parameter["in"] == "path", (name, parameter["name"])


def test_every_error_is_described_with_its_shape(openapi: dict[str, Any]) -> None:
    named = set()
    for name, operation in operations(openapi):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            content = response["content"]["application/json"]
            assert content["schema"]["$ref"].endswith("/ErrorAnswer"), (name, status)
            for code, example in content["examples"].items():
                assert PROBLEMS[code].status == int(status)
                assert example["value"]["error"]["code"] == code
                named.add(code)
    assert "HTTPValidationError" not in openapi["components"]["schemas"]
    # These two belong to no route.
    assert named == set(PROBLEMS) - {"not_found", "method_not_allowed"}


def test_the_page_to_try_it_out_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        page = world.http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 4
        for path in sorted(set(loaded) - {"data:,"}):
            assert ":" not in path
            answer = world.http.get(f"/{path}")
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert "openapi.json" in world.http.get("/docs/start.js").text
        assert [world.http.get(path).status_code for path in ("/redoc", "/docs/redoc.js", "/docs/..%2fapp.py")] == [404] * 3
