"""Where the commands that ask the API find it, and with which key."""

from typing import Final, NamedTuple

import click
import typer

from moodline import Client
from shared.clock import SystemClock
from shared.settings import load_settings

API_URL_HELP: Final = "Where the API is; default: MOODLINE_API_URL, or host and port of the settings."
API_KEY_HELP: Final = "API key; others on this machine can see it here, so MOODLINE_API_KEY is better."


class Place(NamedTuple):
    """What was said on the command line of the API to ask; None: what the settings say."""

    url: str | None = None
    key: str | None = None


def note_place(context: typer.Context, url: str | None, key: str | None) -> None:
    """Remember, for all commands below this one, which API is asked."""
    context.obj = Place(url, key)


def open_client() -> Client:
    """Return a client of the API that the command line or the settings name."""
    context = click.get_current_context(silent=True)
    found = context.find_object(Place) if context is not None else None
    settings = load_settings()
    url = found.url if found and found.url else settings.api_url()
    key = found.key if found and found.key else settings.api.key.get_secret_value()
    return Client(url, key, clock=SystemClock())
