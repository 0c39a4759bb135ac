"""The address of the API and the key, for the commands that ask it."""

from contextvars import ContextVar
from typing import Final, NamedTuple

import typer

from moodline import Client
from moodline.shared.clock import SystemClock
from moodline.shared.settings import load_settings

API_URL_HELP: Final = "Where the API is; default: MOODLINE_API_URL, or host and port of the settings."
API_KEY_HELP: Final = "API key; others on this machine can see it here, so MOODLINE_API_KEY is better."


class Place(NamedTuple):
    """The API's address and key from the command line; None: as the settings have it."""

    url: str | None = None
    key: str | None = None


_SETTINGS: Final = Place()
_place: ContextVar[Place] = ContextVar("place", default=_SETTINGS)


def remember_target(context: typer.Context, url: str | None, key: str | None) -> None:
    """Remember, for all commands below this one and until it ends, which API is asked."""
    token = _place.set(Place(url, key))
    context.call_on_close(lambda: _place.reset(token))


def open_client() -> Client:
    """Return a client of the API that the command line or the settings name."""
    place, settings = _place.get(), load_settings()
    key = place.key or settings.api.key.get_secret_value()
    return Client(place.url or settings.api_url(), key, clock=SystemClock())
