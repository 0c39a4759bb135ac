"""Settings of the library: those of the environment, with what a call says."""

from importlib.util import find_spec
from typing import Final

from moodline.errors import ClientError
from moodline.shared.settings import Settings, load_settings

_PACKAGES: Final = ("cv2", "av", "openvino")


def settings_of(threads: int | None, model: str | None = None) -> Settings:
    """Return the settings of the environment (docs/settings.md).

    Args:
        threads: For detector and classifier each; None: as the settings say, by default one for each processor.
        model: Name of the classifier's model; None: as the settings say.

    Raises:
        ClientError: a package of the workers is missing.
        SettingsError: an environment variable cannot be used.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ClientError(f"this needs the package {package}, which is not installed: pip install 'moodline[embedded]'")
    settings = load_settings()
    changes = {} if threads is None else {"threads": threads}
    named = {} if model is None else {"model": model}
    return settings.model_copy(
        update={
            "detector": settings.detector.model_copy(update=changes),
            "classifier": settings.classifier.model_copy(update={**changes, **named}),
        }
    )
