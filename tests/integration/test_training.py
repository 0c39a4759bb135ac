"""Real training, resumed, exported and evaluated, on Keras with whichever backend this environment has."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from moodline.models import models_dir
from moodline.services.classifier.artefact import load_artefact
from moodline.services.cli.app import app
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError, ModelError, OutputError, SettingsError
from moodline.shared.settings import ClassifierSettings
from moodline.training.architecture import ARCHITECTURES
from moodline.training.backend import import_keras
from moodline.training.config import (
    AugmentConfig,
    DataConfig,
    DistilConfig,
    LossConfig,
    ModelConfig,
    ScheduleConfig,
    TrainConfig,
    config_dict,
)
from moodline.training.data import Dataset, Split, load_data
from moodline.training.evaluate import Metrics
from moodline.training.export import export, folded, serving_network
from moodline.training.network import build_network, float32_network, softmax
from moodline.training.predictor import open_predictor
from moodline.training.runs import (
    BEST,
    CHECKPOINT,
    LOG,
    load_arrays,
    load_checkpoint,
    load_log,
    load_record,
    load_result,
    write_arrays,
)
from moodline.training.soft_labels import soft_labels
from moodline.training.soup import mix
from moodline.training.train import Progress, run_training
from tests.unit.test_training_export import make_state

# Keras' own, on its torch backend with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CONFIG = TrainConfig(
    name="made",
    data=DataConfig(clean=False),
    model=ModelConfig(kind="tiny", precision="float32", dropout=0.2),
    schedule=ScheduleConfig(epochs=3, batch=28, learning_rate=0.1, average_decay=0.7, threads=1, seed=3),
    loss=LossConfig(label_smoothing=0.05, mixup=0.2),
    augment=AugmentConfig(erasing=0.1, shift=0.04, flip=0.0, jpeg=0.05, low_resolution=0.05),
)


@pytest.fixture(scope="module", autouse=True)
def _one_backend_for_all_tests() -> None:
    """Other tests of this process run the served model in TensorFlow, and Keras has one backend in a process."""
    if importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def make_split(count: int, seed: int) -> Split:
    """Return images of seven kinds: a bar at the angle of its class, with other light and grain each time."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 7
    rows, columns = np.mgrid[0:48, 0:48] - 23.5
    angles = np.pi * labels / 7 + random.normal(0, 0.05, count)
    distance = np.abs(rows * np.cos(angles)[:, None, None] - columns * np.sin(angles)[:, None, None])
    light = random.uniform(60, 110, (count, 1, 1))
    images = light + np.where(distance < 5, random.uniform(60, 100, (count, 1, 1)), 0) + random.normal(0, 8, (count, 48, 48))
    return Split(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset({"train": make_split(560, 1), "validation": make_split(140, 2)}, Path("made"))


@pytest.fixture(scope="module")
def unbroken(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_training(CONFIG, data, out)
    return out


def write_folder(data: Dataset, root: Path) -> Path:
    for part, split in data.parts.items():
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = root / part / EMOTIONS[label] / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def write_toml(config: TrainConfig, path: Path) -> Path:
    """Tables of plain values need no library to be written."""
    lines = [f"name = {json.dumps(config.name)}"]
    for table, values in config_dict(config).items():
        if isinstance(values, dict):
            lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    path.write_text("\n".join(lines))
    return path


def without_seconds(run: Path) -> list[dict[str, Any]]:
    return [{**msgspec.structs.asdict(line), "seconds": 0} for line in load_log(run)]


def same_weights(first: Path, second: Path) -> bool:
    one, other = load_arrays(first / BEST), load_arrays(second / BEST)
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_short_run_learns(unbroken: Path) -> None:
    result = load_result(unbroken)
    assert result is not None
    assert result.accuracy > 0.8  # a seventh would be chance
    log = load_log(unbroken)
    assert [line.epoch for line in log] == [0, 1, 2]
    assert max(line.val_accuracy for line in log) == pytest.approx(result.accuracy)
    assert log[-1].train_loss < log[0].train_loss
    assert result.calibration_error_tempered <= result.calibration_error + 0.02


def test_the_same_seed_gives_the_same_weights_after_an_interruption_too(data: Dataset, unbroken: Path, tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.epoch == 1 and now.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(CONFIG, data, tmp_path, on_progress=stop)
    assert len(load_log(tmp_path)) == 1
    resumed = run_training(CONFIG, data, tmp_path, resume=True)
    assert same_weights(tmp_path, unbroken)
    assert without_seconds(tmp_path) == without_seconds(unbroken)
    assert resumed.temperature == load_result(unbroken).temperature  # type: ignore[union-attr]


def test_a_folder_with_another_run_is_left_alone(data: Dataset, unbroken: Path) -> None:
    before = (unbroken / LOG).read_bytes(), (unbroken / CHECKPOINT).read_bytes()
    with pytest.raises(OutputError, match="--resume"):
        run_training(CONFIG, data, unbroken)
    other = msgspec.structs.replace(CONFIG, loss=LossConfig())
    with pytest.raises(SettingsError, match="another configuration"):
        run_training(other, data, unbroken, resume=True)
    swapped = Dataset({"train": data.part("train"), "validation": make_split(140, 9)})
    with pytest.raises(DataError, match="other images"):
        run_training(CONFIG, swapped, unbroken, resume=True)
    assert before == ((unbroken / LOG).read_bytes(), (unbroken / CHECKPOINT).read_bytes())


def test_a_damaged_checkpoint_is_an_error(data: Dataset, unbroken: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((unbroken / "config.json").read_bytes())
    (tmp_path / CHECKPOINT).write_bytes((unbroken / CHECKPOINT).read_bytes()[:5000])
    with pytest.raises(ModelError, match="does not hold plain arrays"):
        run_training(CONFIG, data, tmp_path, resume=True)


def test_a_run_that_was_killed_ends_like_one_that_was_not(data: Dataset, unbroken: Path, tmp_path: Path) -> None:
    folder, config = write_folder(data, tmp_path / "data"), write_toml(CONFIG, tmp_path / "made.toml")
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from moodline.services.cli.app import main; main()", "train", "--config", str(config)]
    command += ["--data", str(folder), "--out", str(out)]
    environment = os.environ | {"KERAS_BACKEND": import_keras().config.backend()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end_s = time.monotonic() + 120
        while not (out / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < end_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert (out / CHECKPOINT).exists()
    finished = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "right on validation" in finished.stdout
    result, expected = load_result(out), load_result(unbroken)
    assert result is not None
    assert expected is not None
    # The folder lists images by class, so this is another order, hence not the same bits.
    assert [line.epoch for line in load_log(out)] == [0, 1, 2]
    assert result.accuracy > 0.8
    assert "560" in (out / "data.txt").read_text()


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_the_folded_network_answers_like_the_trained_one(kind: str) -> None:
    keras = import_keras()
    blocks, temperature = ARCHITECTURES[kind], 1.3
    state = make_state(4, blocks)
    trained, served = float32_network(keras, ModelConfig(kind=kind)), serving_network(keras, "served", blocks)  # type: ignore[arg-type]
    trained.set_weights([state[weight.path] for weight in trained.weights])
    served.set_weights(folded(state, blocks, temperature))
    crops = make_split(6, 5).images
    expected = softmax(np.asarray(trained.predict(crops, verbose=0)) / np.float32(temperature))
    assert np.abs(np.asarray(served.predict(crops, verbose=0)) - expected).max() < 2e-4
    assert served.count_params() <= (5_000_000 if kind == "large" else 1_500_000)


def test_training_precision_and_dropout_do_not_change_what_weights_there_are() -> None:
    keras = import_keras()
    for kind in ARCHITECTURES:
        network, twin = (make(keras, ModelConfig(kind=kind)) for make in (build_network, float32_network))  # type: ignore[arg-type]
        assert [(w.path, tuple(w.shape)) for w in network.weights] == [(w.path, tuple(w.shape)) for w in twin.weights]


def test_a_run_is_exported_and_served_with_its_temperature(data: Dataset, unbroken: Path, tmp_path: Path) -> None:
    folder = write_folder(Dataset({"validation": data.part("validation")}), tmp_path / "data")
    figures = export(unbroken, folder, tmp_path / "made", "made")
    manifest = load_artefact(tmp_path / "made").manifest
    assert msgspec.json.decode((tmp_path / "made" / "metrics.json").read_bytes(), type=Metrics) == figures
    card = (tmp_path / "made" / "README.md").read_text()
    assert f"**{100 * figures.accuracy:.1f}%** right" in card
    assert "not an emotion felt" in card
    assert "Article 5(1)(f)" in card
    assert manifest.metrics["temperature"] == pytest.approx(load_result(unbroken).temperature, abs=2e-4)  # type: ignore[union-attr]
    validation = data.part("validation")
    run, run_temperature = open_predictor(str(unbroken))
    served, temperature = open_predictor(str(tmp_path / "made"))
    assert temperature == pytest.approx(run_temperature, abs=2e-4)
    assert temperature != 1
    assert np.abs(served.predict(validation.images) - run.predict(validation.images)).max() < 0.01
    served.close()


def write_votes(data: Dataset, folder: Path) -> Path:
    """Write votes in which people see the next class in a fifth of the images, for files as `write_folder` names them."""
    columns = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    lines = ["Usage,Image name," + ",".join(columns) + ",contempt,unknown,NF"]
    for part in data.parts.values():
        for index, label in enumerate(part.labels):
            seen = (label + 1) % 7 if index % 5 == 0 else label
            counts = [str(8 * (place == seen) + 2 * (place == label)) for place in range(7)]
            lines.append(f"Training,{index:04d}.png,{','.join(counts)},0,0,0")
    path = folder / "votes.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_model_that_people_taught_is_exported_and_evaluated_against_both_truths(data: Dataset, tmp_path: Path) -> None:
    folder = write_folder(data, tmp_path / "data")
    votes = write_votes(Dataset({"validation": data.part("validation")}), tmp_path)
    figures = export(trained_by_votes(data, tmp_path), folder, tmp_path / "seen", "seen", str(votes), "mirror")
    assert figures.people is not None
    assert figures.people.agreement == pytest.approx(0.8, abs=0.01)
    assert figures.people.mean_accuracy == pytest.approx((figures.people.accuracy + figures.accuracy) / 2, abs=1e-3)
    manifest = load_artefact(tmp_path / "seen").manifest
    assert manifest.views == "mirror"
    assert manifest.metrics["accuracy_people"] == figures.people.accuracy
    card = (tmp_path / "seen" / "README.md").read_text()
    assert f"| right against what most people see | **{100 * figures.people.accuracy:.1f}%**" in card
    assert "the mean of a face and its mirror image" in card
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "seen"), str(folder), "--out", str(out), "--votes", str(votes)])
    assert done.exit_code == 0, done.output
    assert "people (majority)" in done.output
    again = msgspec.json.decode((out / "metrics.json").read_bytes(), type=Metrics)
    assert again.people is not None
    assert again.people.accuracy == pytest.approx(figures.people.accuracy, abs=0.01)
    assert (out / "both_truths.png").is_file()
    assert "What people see" in (out / "report.html").read_text()


def trained_by_votes(data: Dataset, folder: Path) -> Path:
    """Return a run that learnt from labels and votes, with images named as files."""
    named = {
        name: Split(part.images, part.labels, tuple(f"{name}{index:04d}.png" for index in range(len(part))))
        for name, part in data.parts.items()
    }
    lines = ["Usage,Image name,anger,disgust,fear,happiness,sadness,surprise,neutral,contempt,unknown,NF"]
    for part in named.values():
        for name, label in zip(part.names, part.labels, strict=True):
            lines.append(f"Training,{name},{','.join(str(9 * (place == label)) for place in range(7))},0,1,0")
    (folder / "train-votes.csv").write_text("\n".join(lines) + "\n")
    config = msgspec.structs.replace(CONFIG, data=DataConfig(votes=str(folder / "train-votes.csv"), votes_weight=0.5))
    result = run_training(config, Dataset(named, data.source), folder / "by-votes")
    assert result.people == pytest.approx(result.accuracy, abs=1e-6)
    assert load_log(folder / "by-votes")[-1].val_people > 0.5
    return folder / "by-votes"


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        open_predictor(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not what a training run writes"):
        open_predictor(str(tmp_path))


def test_evaluate_writes_figures_pictures_and_one_page(data: Dataset, unbroken: Path, tmp_path: Path) -> None:
    folder = write_folder(Dataset({"validation": data.part("validation")}), tmp_path / "data")
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["evaluate", str(unbroken), str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    metrics, result = json.loads((out / "metrics.json").read_text()), load_result(unbroken)
    assert result is not None
    assert metrics["accuracy"] == pytest.approx(result.accuracy, abs=1e-3)
    assert metrics["calibration"]["temperature"] == result.temperature
    assert metrics["calibration"]["error_before"] == pytest.approx(result.calibration_error, abs=2e-3)
    pictures = {"history", "confusion", "confusion_normalised", "calibration", "roc", "errors"}
    assert {path.stem for path in out.glob("*.png")} == pictures
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 150
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "src='data:" in page
    assert "src='http" not in page
    assert "href=" not in page


def test_weights_from_elsewhere_are_only_fetched_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keras = import_keras()

    def refuse(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    config = ModelConfig(kind="transfer", base="mobilenet_v2")
    network = build_network(keras, config)
    assert network.output_shape == (None, 7)
    assert np.asarray(network.predict(make_split(2, 1).images, verbose=0)).shape == (2, 7)
    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", refuse)
    with pytest.raises(ModelError, match="could not be fetched"):
        build_network(keras, config, fetch_weights=True)
    with pytest.raises(SettingsError, match="mobilenet_v2"):
        build_network(keras, msgspec.structs.replace(config, base="other"))


@pytest.fixture(scope="session")
def fer2013(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real archive, unpacked."""
    archive = material / "data" / "fer2013.tar.gz"
    if not archive.is_file():
        pytest.skip(f"no data set at {archive}")
    root = tmp_path_factory.mktemp("fer2013")
    with tarfile.open(archive) as packed:
        packed.extractall(root, filter="data")
    return root / "fer2013"


@pytest.fixture(scope="session")
def real(fer2013: Path) -> Dataset:
    return load_data(fer2013)


@pytest.mark.material
@pytest.mark.slow
def test_the_real_archive_has_the_faults_that_are_known(real: Dataset) -> None:
    from moodline.training.data_report import report_data

    report = report_data(real)
    train, validation = report.parts["train"], report.parts["validation"]
    assert (train.images, validation.images) == (28709, 3589)
    assert (train.blank, train.copies, train.conflicts) == (11, 1236, 39)
    assert train.classes["disgust"] == 436
    assert report.leaks == {"train & validation": 280}


@pytest.mark.material
@pytest.mark.slow
def test_a_short_run_on_real_faces_beats_36_percent(real: Dataset, tmp_path: Path) -> None:
    rows = np.arange(0, 3589, 4)  # a quarter is enough to see it: the margin is wide
    part = Dataset({"train": real.part("train"), "validation": real.part("validation").subset(rows)}, real.source)
    config = TrainConfig(
        data=DataConfig(limit=5000),
        model=ModelConfig(kind="tiny", precision="float32", dropout=0.0),
        schedule=ScheduleConfig(epochs=3, batch=32, learning_rate=0.1, average_decay=0.98, threads=1, seed=7),
        loss=LossConfig(label_smoothing=0.0, balance=0.0, mixup=0.0),
        augment=AugmentConfig(enabled=False),
    )
    assert run_training(config, part, tmp_path).accuracy > 0.36  # always "happy" would be 25%


@pytest.mark.material
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_evaluate_gives_the_shipped_models_own_figures(fer2013: Path, tmp_path: Path) -> None:
    name = ClassifierSettings().model
    done = CliRunner().invoke(app, ["evaluate", name, str(fer2013), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    claimed = json.loads((models_dir() / name / "metrics.json").read_text())
    assert metrics["images"] == claimed["images"] == 3589
    for figure in ("accuracy", "accuracy_flip", "accuracy_ten_crop", "macro_f1"):
        assert metrics[figure] == pytest.approx(claimed[figure], abs=0.001)
    assert metrics["robustness"] == pytest.approx(claimed["robustness"], abs=0.003)  # OpenCV's rounding
    for emotion, row in claimed["classes"].items():
        assert metrics["classes"][emotion]["recall"] == pytest.approx(row["recall"], abs=1.01 / row["support"] + 0.001)
    assert metrics["calibration"]["error"] == pytest.approx(claimed["calibration"]["error"], abs=0.001)
    assert metrics["interval_95"][0] < metrics["accuracy"] < metrics["interval_95"][1]
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


@pytest.mark.material
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs(fer2013: Path, repo: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel: install moodline[train]")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel: install moodline[train]")
    pytest.importorskip("ipykernel", reason="notebooks need nbclient and ipykernel: install moodline[train]")
    notebook = nbformat.read(repo / "training/facial_expression_recognition.ipynb", as_version=4)
    environment = {"DATA": str(fer2013), "LIMIT": "1000", "EPOCHS": "2", "RUN": str(tmp_path / "run")}
    environment |= {"KERAS_BACKEND": import_keras().config.backend()}
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(repo)}})
    client.execute(env=os.environ | environment)
    kinds = {name for cell in notebook.cells for output in cell.get("outputs", []) for name in output.get("data", {})}
    assert "image/png" in kinds
    assert load_result(tmp_path / "run") is not None


def test_soft_labels_and_a_start_go_from_run_to_run_and_runs_can_be_averaged(
    data: Dataset, unbroken: Path, tmp_path: Path
) -> None:
    folder = write_folder(data, tmp_path / "data")
    soft = soft_labels([str(unbroken)], data.part("train").images)
    assert np.allclose(soft.sum(1), 1, atol=1e-4)
    write_arrays(tmp_path / "soft.npz", {"probabilities": soft})
    config = msgspec.structs.replace(
        CONFIG,
        name="second",
        model=msgspec.structs.replace(CONFIG.model, start=str(unbroken)),
        schedule=msgspec.structs.replace(CONFIG.schedule, epochs=1, learning_rate=0.0),
        distil=DistilConfig(soft_labels=str(tmp_path / "soft.npz"), weight=0.5),
    )
    run_training(config, data, tmp_path / "second")
    first, second = load_arrays(unbroken / BEST), load_arrays(tmp_path / "second" / BEST)
    assert np.array_equal(first["conv1/kernel"], second["conv1/kernel"]), "it did not begin with the first run's weights"
    mix([unbroken, tmp_path / "second"], folder, tmp_path / "mean")
    ends = [load_checkpoint(run)[1]["average"][0] for run in (unbroken, tmp_path / "second")]
    assert np.allclose(load_arrays(tmp_path / "mean" / BEST)["conv1/kernel"], np.mean(ends, 0), atol=1e-6)
    assert load_record(tmp_path / "mean").config.model.start == str(tmp_path / "second")
    other = msgspec.structs.replace(config, model=ModelConfig(kind="baseline", precision="float32", start=str(unbroken)))
    with pytest.raises(ModelError, match="does not fit"):
        run_training(other, data, tmp_path / "third")
