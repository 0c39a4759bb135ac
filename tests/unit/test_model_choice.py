"""Choosing a model: over the API, on the command line, and what is installed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moodline.models import models_dir
from moodline.services.api.server import ApiServer
from moodline.services.classifier.catalogue import ModelCatalogue
from moodline.services.cli.app import app
from moodline.shared.errors import ModelError, ModelNotFoundError, StoreError
from moodline.shared.settings import ClassifierSettings
from moodline.shared.store.model_choice import ModelChoice, ModelRefusal, read_choice, write_choice, write_refusal
from tests.support.api import NOW, NOW_US, ApiWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with ApiWorld(tmp_path) as world, ApiServer(world.app, "127.0.0.1", 0) as server:
        monkeypatch.setenv("MOODLINE_API_URL", server.url)
        monkeypatch.setenv("COLUMNS", "160")
        yield world


def copy_model(folder: Path, name: str) -> Path:
    """Install the shipped model a second time under another name."""
    shutil.copytree(models_dir() / "fer-seed", folder / name)
    manifest = json.loads((folder / name / "model.json").read_text())
    (folder / name / "model.json").write_text(json.dumps({**manifest, "name": name}))
    return folder / name


def test_a_choice_is_kept_and_the_list_says_so(world: ApiWorld) -> None:
    before = world.get("/models").json()
    assert (before["active"], before["chosen"], before["refused"]) == ("fer-seed", None, None)
    answer = world.http.put("/api/v1/models/active", json={"name": "fer-large"})
    assert answer.status_code == 200
    assert (answer.json()["active"], answer.json()["chosen"]) == ("fer-large", NOW)
    assert [model["active"] for model in answer.json()["models"]] == [True, False, False]
    assert read_choice(world.store) == ModelChoice("fer-large", NOW_US)
    assert world.get("/models").json() == answer.json()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "mine"}, 422, "model"),
        ({"name": "nobody"}, 404, "model_not_found"),
        ({"name": "../../etc"}, 404, "model_not_found"),
        ({"name": ""}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ({"name": "fer-seed", "force": True}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_changes(
    world: ApiWorld, body: dict[str, object], status: int, code: str
) -> None:
    answer = world.http.put("/api/v1/models/active", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert read_choice(world.store) is None


def test_a_refusal_is_shown_until_somebody_chooses_again(world: ApiWorld) -> None:
    choice = ModelChoice("fer-large", NOW_US)
    write_choice(world.store, choice)
    write_refusal(world.store, ModelRefusal(choice, "other shapes", NOW_US))
    assert world.get("/models").json()["refused"] == {"name": "fer-large", "reason": "other shapes", "at": NOW}
    write_choice(world.store, ModelChoice("fer-large", NOW_US + 1))
    assert world.get("/models").json()["refused"] is None


def test_the_command_line_lists_and_chooses(world: ApiWorld) -> None:
    runner = CliRunner()
    lines = runner.invoke(app, ["models", "ls"]).stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["name", "active", "parameters", "accuracy"],
        ["fer-large", "1,200,000", "71.0%", "/srv/models/fer-large"],
        ["fer-seed", "yes", "602,535", "65.0%"],
        ["mine", "0", "-", "weights.npz"],
    ]
    assert "fer-large is active" in runner.invoke(app, ["models", "activate", "fer-large"]).stdout
    assert json.loads(runner.invoke(app, ["models", "ls", "--json"]).stdout)["active"] == "fer-large"
    write_refusal(world.store, ModelRefusal(ModelChoice("fer-large", NOW_US), "other shapes", NOW_US))
    assert "could not load fer-large" in runner.invoke(app, ["models", "ls"]).stderr
    result = runner.invoke(app, ["models", "activate", "nobody"])
    assert "there is no model 'nobody'" in str(result.exception)


def test_a_note_that_cannot_be_read_is_a_typed_error(world: ApiWorld) -> None:
    world.store.set_config_entry("classifier/choice", b"\xff{")
    with pytest.raises(StoreError, match="classifier/choice"):
        read_choice(world.store)


def test_installed_models_come_from_three_places_with_their_figures(tmp_path: Path) -> None:
    own = copy_model(tmp_path / "elsewhere", "my-model")
    further = copy_model(tmp_path / "more", "further")
    catalogue = ModelCatalogue(ClassifierSettings(model=str(own), models_dir=tmp_path / "more"))
    listed = {model.name: model for model in catalogue.list_models()}
    assert {"fer-seed", "further", "my-model"} <= listed.keys()
    assert catalogue.default_name == "my-model"
    seed = listed["fer-seed"]
    assert 500_000 < seed.parameters < 1_500_000
    assert seed.accuracy == json.loads((models_dir() / "fer-seed" / "model.json").read_text())["metrics"]["accuracy"]
    assert (listed["further"].source, listed["further"].problem) == (str(further), "")
    assert catalogue.check("further").sha256 == seed.sha256


def test_a_model_that_cannot_be_used_is_listed_with_its_problem(tmp_path: Path) -> None:
    weights = copy_model(tmp_path, "damaged") / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    copy_model(tmp_path, "first").rename(tmp_path / "second")
    catalogue = ModelCatalogue(ClassifierSettings(models_dir=tmp_path))
    listed = {model.name: model.problem for model in catalogue.list_models()}
    assert "SHA-256" in listed["damaged"]
    assert "holds the model first" in listed["second"]
    for name in ("damaged", "second"):
        with pytest.raises(ModelError):
            catalogue.check(name)
    for name in ("first", "", ".", "..", str(tmp_path / "damaged"), "../models/fer-seed"):
        with pytest.raises(ModelNotFoundError):
            catalogue.check(name)
