"""The active classifier model: chosen through the API, kept as a config entry in the store, polled by every classifier.

What a model is, the services know; here are only names and what is said of them.
"""

from typing import Final, Protocol, TypeVar

import msgspec

from moodline.shared.errors import StoreError
from moodline.shared.store.base import ConfigEntries

_CHOICE: Final = "classifier/choice"
_REFUSAL: Final = "classifier/refusal"

_Record = TypeVar("_Record")


class ModelChoice(msgspec.Struct, frozen=True):
    """The model that all classifiers are to use.

    Attributes:
        name: Its name.
        chosen_at_us: When it was chosen, microseconds since the Unix epoch; the same name may be chosen again.
    """

    name: str
    chosen_at_us: int


class ModelRefusal(msgspec.Struct, frozen=True):
    """A choice that a classifier could not follow; it goes on with the model that it had.

    Attributes:
        choice: The choice.
        reason: Why, for people.
        refused_at_us: When, microseconds since the Unix epoch.
    """

    choice: ModelChoice
    reason: str
    refused_at_us: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of an installed model.

    Attributes:
        name: Name in messages and timelines.
        parameters: How many weights it has.
        accuracy: Share of right answers on the images that `measured_on` names, 0 to 1; None where it was not measured.
        measured_on: What the accuracy was measured on.
        sha256: Of its weights.
        source: Folder that it was read from.
        problem: Why it cannot be used; empty where it can.
    """

    name: str
    parameters: int = 0
    accuracy: float | None = None
    measured_on: str = ""
    sha256: str = ""
    source: str = ""
    problem: str = ""


class Catalogue(Protocol):
    """The models that are installed where the API runs."""

    @property
    def default_name(self) -> str:
        """Name of the model that the settings name, which is active until another one is chosen."""
        ...

    def list_models(self) -> list[ModelInfo]:
        """Return all, ordered by name, those that cannot be used included. Reads disk."""
        ...

    def check(self, name: str) -> ModelInfo:
        """Return a model after reading and checking all of it.

        Raises:
            ModelNotFoundError: there is none of this name.
            ModelError: it is damaged, altered, or of another kind.
        """
        ...


def read_choice(config_entries: ConfigEntries) -> ModelChoice | None:
    """Return what was chosen, or None. Blocks on the store."""
    return _read(config_entries, _CHOICE, ModelChoice)


def write_choice(config_entries: ConfigEntries, choice: ModelChoice) -> None:
    """Choose a model. Blocks on the store."""
    config_entries.set_config_entry(_CHOICE, msgspec.json.encode(choice))


def read_refusal(config_entries: ConfigEntries) -> ModelRefusal | None:
    """Return the latest refusal of the present choice, or None. Blocks on the store."""
    refusal = _read(config_entries, _REFUSAL, ModelRefusal)
    return refusal if refusal is not None and refusal.choice == read_choice(config_entries) else None


def write_refusal(config_entries: ConfigEntries, refusal: ModelRefusal) -> None:
    """Say that a choice cannot be followed. Blocks on the store."""
    config_entries.set_config_entry(_REFUSAL, msgspec.json.encode(refusal))


def _read(config_entries: ConfigEntries, name: str, kind: type[_Record]) -> _Record | None:
    value = config_entries.config_entry(name)
    try:
        return msgspec.json.decode(value, type=kind) if value else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"the stored note {name} cannot be read by this version: {error}") from None
