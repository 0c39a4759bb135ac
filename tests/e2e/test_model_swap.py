"""Another model while a stream plays, in the whole service with the real engine."""

import json
import shutil
import time
from pathlib import Path

import pytest

from moodline.models import models_dir
from moodline.services.classifier.catalogue import ModelCatalogue
from moodline.services.runtime.embedded import EmbeddedService
from moodline.shared.errors import ModelError
from moodline.shared.messages import StreamClass
from moodline.shared.settings import ClassifierSettings, DetectorSettings, IngestSettings, Settings
from moodline.shared.store.model_choice import ModelChoice, read_refusal, write_choice
from moodline.shared.timeline import TimelineQuery, timeline
from tests.support.reference import synthetic_spec

SECONDS = 40


def copy_model(folder: Path, name: str, bias: float) -> None:
    """Install the shipped model under another name."""
    shutil.copytree(models_dir() / "fer-seed", folder / name)
    manifest = json.loads((folder / name / "model.json").read_text())
    manifest["architecture"]["layers"][2]["config"]["offset"] = bias
    (folder / name / "model.json").write_text(json.dumps({**manifest, "name": name}))


def wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_the_model_changes_in_the_middle_of_a_stream_and_its_points_say_so(tmp_path: Path) -> None:
    copy_model(tmp_path, "second", bias=-1.0)
    copy_model(tmp_path, "broken", bias=-1.0)
    settings = Settings(
        data_dir=tmp_path / "data",
        ingest=IngestSettings(media_root=tmp_path),
        detector=DetectorSettings(threads=1),
        classifier=ClassifierSettings(threads=1, models_dir=tmp_path),
    )
    spec = synthetic_spec("lobby", SECONDS, 0)
    with EmbeddedService(settings) as service:
        store = service.resources.store
        store.add(spec)

        def frames() -> int:
            service.check()
            progress = store.load(["lobby"])[0]
            return progress.high_water_mark.seq if progress is not None and progress.high_water_mark is not None else 0

        wait_for(lambda: frames() > 50, "no frame came")
        # Sound when it was chosen, damaged when it is loaded: the classifier refuses it and goes on.
        write_choice(store, ModelChoice("broken", 1))
        (tmp_path / "broken" / "weights.npz").write_bytes(b"PK")
        with pytest.raises(ModelError, match="SHA-256"):
            ModelCatalogue(settings.classifier).check("broken")
        wait_for(lambda: read_refusal(store) is not None, "the damaged model was not refused")
        write_choice(store, ModelChoice("second", 2))
        metrics = service.resources.metrics.registry
        used = "moodline_model_active", {"model": "second"}
        wait_for(lambda: metrics.get_sample_value(*used) == 1, "the model was not changed")
        assert frames() < SECONDS * 25, "the stream was over before the change; make it longer"
        wait_for(lambda: bool((found := store.load(["lobby"])[0]) and found.final), "the stream did not end")
        answer = timeline(store, "lobby", StreamClass.FILE, TimelineQuery(resolution_s=1))
    names = [point.models for point in answer.points]
    assert answer.summary.sampled == answer.summary.classified == SECONDS * 25
    assert answer.summary.models == ("fer-2-small", "second")
    assert names[0] == ("fer-2-small",)
    assert names[-1] == ("second",)
    assert sorted(names) == names, "it changed back"
    assert len(set(names)) <= 3
