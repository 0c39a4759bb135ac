"""Settings to a model."""

import importlib.util
from pathlib import Path
from typing import Final

from moodline.services.classifier.artefact import Artefact
from moodline.services.classifier.catalogue import ModelCatalogue, model_folder
from moodline.services.classifier.mirror import with_views
from moodline.services.classifier.model import Model
from moodline.shared.settings import ClassifierSettings

__all__ = ["model_folder", "open_model"]

_GPU_DEVICES: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""One is there where a driver for NVIDIA (also under WSL) or AMD is; without any, TensorFlow need not be asked."""


def open_model(settings: ClassifierSettings, name: str | None = None) -> Model:
    """Load the model that the settings name, or another installed one, ready to answer. Blocks: TensorFlow takes seconds.

    Raises:
        ModelError: there is none of this name, or it cannot be used.
    """
    catalogue = ModelCatalogue(settings)
    artefact = catalogue.load_default() if name is None else catalogue.load(name)
    make = _tensorflow_model if _runs_on_tensorflow(settings.engine) else _openvino_model
    return with_views(make(artefact, settings), artefact.manifest.views)


def _runs_on_tensorflow(engine: str) -> bool:
    if engine != "auto":
        return engine == "tensorflow"
    if importlib.util.find_spec("tensorflow") is None or not any(device.exists() for device in _GPU_DEVICES):
        return False
    from moodline.services.classifier.tensorflow_import import import_tensorflow

    return bool(import_tensorflow().config.list_physical_devices("GPU"))


def _openvino_model(artefact: Artefact, settings: ClassifierSettings) -> Model:
    from moodline.services.classifier.openvino_model import OpenVinoModel

    return OpenVinoModel(artefact, settings.batch_size, settings.threads, settings.precision)


def _tensorflow_model(artefact: Artefact, settings: ClassifierSettings) -> Model:
    from moodline.services.classifier.keras_model import KerasModel

    return KerasModel(artefact, settings.batch_size, settings.threads)
