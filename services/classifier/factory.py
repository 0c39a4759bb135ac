"""Settings to a model."""

import importlib.util
from pathlib import Path
from typing import Final

from models import models_dir
from services.classifier.artefact import MANIFEST, Artefact, load_artefact
from services.classifier.model import Model
from shared.errors import ModelError
from shared.settings import ClassifierSettings

_GPU_DEVICES: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""One is there where a driver for NVIDIA (also under WSL) or AMD is; without any, TensorFlow need not be asked."""


def open_model(settings: ClassifierSettings, name: str | None = None) -> Model:
    """Load the model that the settings name, or another one, ready to answer. Blocks: TensorFlow takes seconds to import.

    Raises:
        ModelError: there is none of this name, or it cannot be used.
    """
    artefact = load_artefact(model_folder(name or settings.model))
    if _runs_on_tensorflow(settings.engine):
        return _tensorflow_model(artefact, settings)
    from services.classifier.openvino_model import OpenVinoModel

    return OpenVinoModel(artefact, settings.batch_size, settings.threads, settings.precision)


def _runs_on_tensorflow(engine: str) -> bool:
    if engine != "auto":
        return engine == "tensorflow"
    if importlib.util.find_spec("tensorflow") is None or not any(device.exists() for device in _GPU_DEVICES):
        return False
    from services.classifier.tensorflow_import import import_tensorflow

    return bool(import_tensorflow().config.list_physical_devices("GPU"))


def _tensorflow_model(artefact: Artefact, settings: ClassifierSettings) -> Model:
    from services.classifier.keras_model import KerasModel

    return KerasModel(artefact, settings.batch_size, settings.threads)


def model_folder(name: str) -> Path:
    """Return the folder of a shipped model, or the one that a path names.

    Raises:
        ModelError: neither exists.
    """
    shipped = models_dir() / name
    if Path(name).name == name and (shipped / MANIFEST).is_file():
        return shipped
    folder = Path(name).expanduser()
    if name and (folder / MANIFEST).is_file():
        return folder
    known = sorted(path.parent.name for path in models_dir().glob(f"*/{MANIFEST}"))
    raise ModelError(f"there is no model {name!r}; shipped: {', '.join(known) or 'none'}; or name a folder with {MANIFEST}")
