"""Settings to a model."""

from pathlib import Path

from models import models_dir
from services.classifier.artefact import MANIFEST, load_artefact
from services.classifier.model import Model
from shared.errors import ModelError
from shared.settings import ClassifierSettings


def open_model(settings: ClassifierSettings) -> Model:
    """Load the model that the settings name, ready to answer. Blocks for seconds: it imports TensorFlow.

    Raises:
        ModelError: there is none of this name, or it cannot be used.
    """
    artefact = load_artefact(model_folder(settings.model))
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
