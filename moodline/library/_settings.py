"""Settings of the library: those of the environment, with what a call says."""

from importlib.util import find_spec
from numbers import Integral
from typing import Final

from moodline.errors import ClientError
from moodline.shared.settings import Settings, load_settings

_PACKAGES: Final = ("cv2", "av", "openvino")
_MOST_THREADS: Final = 256


def settings_of(threads: int | None, model: str | None = None) -> Settings:
    """Return the settings of the environment (docs/settings.md).

    Args:
        threads: For detector and classifier each, 0 to 256; None or 0: as the settings say, by default one for each processor.
        model: Name of the classifier's model; None: as the settings say.

    Raises:
        ClientError: a package of the workers is missing, or `threads` or `model` is of another type or out of range.
        SettingsError: an environment variable cannot be used.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ClientError(f"this needs the package {package}, which is not installed: pip install 'moodline[embedded]'")
    _check(threads, model)
    settings = load_settings()
    changes = {"threads": int(threads)} if threads else {}
    named = {} if model is None else {"model": model}
    return settings.model_copy(
        update={
            "detector": settings.detector.model_copy(update=changes),
            "classifier": settings.classifier.model_copy(update={**changes, **named}),
        }
    )


def _check(threads: object, model: object) -> None:
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if threads is not None and not (whole and 0 <= threads <= _MOST_THREADS):  # type: ignore[operator]  # a whole number
        raise ClientError(f"threads is a whole number from 1 to {_MOST_THREADS}, not {threads!r}")
    if model is not None and not isinstance(model, str):
        raise ClientError(f"model is the name of a model, not {type(model).__name__}")
