"""The models that are installed: those that come with Moodline, those of the models folder, and the one of the settings."""

from pathlib import Path

from moodline.models import models_dir
from moodline.services.classifier.artefact import MANIFEST, Artefact, Manifest, load_artefact, load_manifest
from moodline.shared.errors import ModelError, ModelNotFoundError
from moodline.shared.settings import ClassifierSettings
from moodline.shared.store.model_choice import ModelInfo


class ModelCatalogue:
    """Implements `moodline.shared.store.model_choice.Catalogue`.

    The name of a model is the name of its folder; nothing else on the disk can be named.
    """

    def __init__(self, settings: ClassifierSettings) -> None:
        self._settings = settings

    @property
    def default_name(self) -> str:
        try:
            return load_manifest(self._configured()).name
        except ModelError:
            return self._settings.model

    def list_models(self) -> list[ModelInfo]:
        found = []
        for name, folder in sorted(self._folders().items()):
            try:
                found.append(_described(_load(name, folder), folder))
            except ModelError as error:
                found.append(ModelInfo(name=name, source=str(folder), problem=str(error)))
        return found

    def check(self, name: str) -> ModelInfo:
        folder = self.folder(name)
        return _described(_load(name, folder), folder)

    def load(self, name: str) -> Artefact:
        """Return a checked artefact. Raises as `check` does."""
        return _load(name, self.folder(name))

    def load_default(self) -> Artefact:
        """Return the model that the settings name. Raises `ModelError`."""
        return load_artefact(self._configured())

    def folder(self, name: str) -> Path:
        """Return where a model is. Raises `ModelNotFoundError`."""
        folders = self._folders()
        if name not in folders:
            raise ModelNotFoundError(f"there is no model {name!r}; installed: {', '.join(sorted(folders)) or 'none'}")
        return folders[name]

    def _configured(self) -> Path:
        return model_folder(self._settings.model, self._settings.models_dir)

    def _folders(self) -> dict[str, Path]:
        places = [models_dir()] if self._settings.models_dir is None else [models_dir(), self._settings.models_dir.expanduser()]
        folders = {path.parent.name: path.parent for place in places for path in sorted(place.glob(f"*/{MANIFEST}"))}
        try:
            configured = self._configured()
            folders[load_manifest(configured).name] = configured
        except ModelError:
            pass  # what is wrong with it is said where it is used
        return folders


def model_folder(name: str, further: Path | None = None) -> Path:
    """Return the folder of an installed model, or the one that a path names.

    Raises:
        ModelError: neither exists.
    """
    places = [models_dir()] if further is None else [further.expanduser(), models_dir()]
    if name and Path(name).name == name:
        for place in places:
            if (place / name / MANIFEST).is_file():
                return place / name
    folder = Path(name).expanduser()
    if name and (folder / MANIFEST).is_file():
        return folder
    known = sorted({path.parent.name for place in places for path in place.glob(f"*/{MANIFEST}")})
    raise ModelNotFoundError(
        f"there is no model {name!r}; installed: {', '.join(known) or 'none'}; or name a folder with {MANIFEST}"
    )


def _load(name: str, folder: Path) -> Artefact:
    artefact = load_artefact(folder)
    if artefact.manifest.name != name:
        raise ModelError(f"{folder} holds the model {artefact.manifest.name}: the folder must have the same name")
    return artefact


def _described(artefact: Artefact, folder: Path) -> ModelInfo:
    manifest: Manifest = artefact.manifest
    accuracy, measured_on = manifest.metrics.get("accuracy"), manifest.metrics.get("split")
    is_share = isinstance(accuracy, int | float) and not isinstance(accuracy, bool) and 0 <= accuracy <= 1
    return ModelInfo(
        name=manifest.name,
        parameters=sum(weight.size for weight in artefact.weights),
        accuracy=float(accuracy) if is_share and accuracy is not None else None,
        measured_on=measured_on if isinstance(measured_on, str) else "",
        sha256=manifest.weights_sha256,
        source=str(folder),
    )
