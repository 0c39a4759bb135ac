"""Settings of the library: those of the environment, with what a call says."""

from moodline.shared.settings import Settings, load_settings


def settings_of(threads: int | None, model: str | None = None) -> Settings:
    """Return the settings of the environment (docs/settings.md).

    Args:
        threads: For detector and classifier each; None: as the settings say, by default one for each processor.
        model: Name of the classifier's model; None: as the settings say.
    """
    settings = load_settings()
    changes = {} if threads is None else {"threads": threads}
    named = {} if model is None else {"model": model}
    return settings.model_copy(
        update={
            "detector": settings.detector.model_copy(update=changes),
            "classifier": settings.classifier.model_copy(update={**changes, **named}),
        }
    )
