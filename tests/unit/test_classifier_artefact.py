import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moodline.models import models_dir
from moodline.services.classifier.artefact import MANIFEST, WEIGHTS, check_architecture, load_artefact
from moodline.services.classifier.factory import model_folder, open_model
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import ModelError
from moodline.shared.settings import ClassifierSettings


def layer(class_name: str = "Dense", module: str | None = "keras.layers", **config: object) -> dict[str, object]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write(folder: Path, weights: bytes | None = None, **changes: object) -> Path:
    weights = npz(a=np.zeros((3, 2), np.float16), b=np.ones(2, np.float32)) if weights is None else weights
    manifest = {
        "format": 1,
        "name": "tiny-1.0",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "input": {"dtype": "uint8", "shape": [48, 48], "layout": "HW", "colour": "grey"},
        "classes": list(EMOTIONS),
        "architecture": {"layers": [layer(units=7, activation="softmax")]},
        "metrics": {},
        "training": {},
    }
    (folder / WEIGHTS).write_bytes(weights)
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    return folder


def test_a_sound_artefact_is_loaded_as_float32_in_order(tmp_path: Path) -> None:
    artefact = load_artefact(write(tmp_path))
    assert artefact.manifest.name == "tiny-1.0"
    assert [(value.shape, value.dtype) for value in artefact.weights] == [((3, 2), np.float32), ((2,), np.float32)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"name": ""}, "name"),
        ({"name": "../evil"}, "name"),
        ({"classes": list(EMOTIONS[::-1])}, "classes"),
        ({"classes": ["happy"]}, "classes"),
        ({"input": {"dtype": "float32", "shape": [48, 48], "layout": "HW", "colour": "grey"}}, "uint8 grey"),
        ({"input": {"dtype": "uint8", "shape": [64, 64], "layout": "HW", "colour": "grey"}}, "uint8 grey"),
        ({"weights_sha256": "0" * 64}, "SHA-256 differs"),
        ({"surprise": 1}, "not a model manifest"),
        ({"metrics": None}, "not a model manifest"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_artefact(write(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path) / MANIFEST).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_artefact(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_artefact(tmp_path)


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path) / WEIGHTS
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        load_artefact(tmp_path)


def test_the_bytes_that_were_hashed_are_the_bytes_that_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    original, read = (tmp_path / WEIGHTS).read_bytes(), Path.read_bytes

    def exchange(path: Path) -> bytes:
        data = read(path)
        if path.name == WEIGHTS:
            path.write_bytes(npz(a=np.full((3, 2), 9, np.float16), b=np.ones(2, np.float32)))
        return data

    monkeypatch.setattr(Path, "read_bytes", exchange)
    artefact = load_artefact(tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size == len(original)
    assert (artefact.weights[0] == 0).all()


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pickle-was-run",)


def object_array() -> bytes:
    array = np.empty(1, object)
    array[0] = Bomb()
    return npz(a=array)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"no archive",
        pickle.dumps(Bomb()),
        object_array(),
        npz(a=np.array([np.nan], np.float32)),
        npz(a=np.array([np.inf], np.float16)),
        npz(a=np.zeros(3, np.float64)),
        npz(a=np.array(["text"])),
        npz(a=np.zeros(3, np.float32))[:-30],
    ],
)
def test_what_is_not_plain_finite_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=WEIGHTS):
        load_artefact(write(tmp_path, weights))
    assert not (tmp_path / "pickle-was-run").exists()


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1024 * 1024))
    assert len(buffer.getvalue()) < 1024 * 1024
    with pytest.raises(ModelError, match="unpacks to"):
        load_artefact(write(tmp_path, buffer.getvalue()))


@pytest.mark.parametrize(
    "config",
    [
        layer("Lambda"),
        layer("TFSMLayer"),
        layer("TorchModuleWrapper"),
        layer("Dense", "keras.src.layers.core.dense"),
        layer("Dense", None),
        layer("system", "os"),
        layer("Popen", "subprocess"),
        layer("function", "builtins"),
        layer("__lambda__", None),
        {"class_name": "Lambda"},
        {"class_name": ["Dense"], "module": "keras.layers"},
        {"class_name": "Dense", "module": ["keras.layers"]},
        {"module": "os"},
        {**layer("Dense"), "registered_name": "evil>Dense"},
        layer("Dense", activation="evil"),
        layer("Dense", activation=layer("function", "builtins")),
        layer("Dense", activation=["relu"]),
        layer("Dense", kernel_regularizer=layer("L2", "keras.regularizers")),
        layer("Dense", dtype="float64"),
        layer("Dense", dtype=layer("DTypePolicy", "keras", name="mixed_bfloat16")),
        layer("Dense", units=10_000_000),
        layer("Conv2D", kernel_size=[3, 1_000_000]),
    ],
)
def test_only_known_layers_of_sane_size_may_be_named(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="architecture"):
        load_artefact(write(tmp_path, architecture={"layers": [layer(units=7), {"wrapped": [config]}]}))


def test_nesting_is_bounded() -> None:
    config: Any = {}
    for _ in range(100):
        config = {"inner": config}
    with pytest.raises(ModelError, match="nested"):
        check_architecture(config)


def test_shipped_models_are_found_by_name_and_others_by_path(tmp_path: Path) -> None:
    assert model_folder("fer-seed") == models_dir() / "fer-seed"
    assert model_folder(str(write(tmp_path))) == tmp_path


@pytest.mark.parametrize("name", ["", ".", "..", "fer-seeed", "/nowhere/at/all", "../models/none"])
def test_an_unknown_model_is_a_clear_error(name: str) -> None:
    with pytest.raises(ModelError, match="fer-seed"):
        open_model(ClassifierSettings(model=name))
