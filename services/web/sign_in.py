"""The sign-in page, where a visitor enters a key."""

from typing import Any

from nicegui import ui

from moodline.services.web.elements import SignIn
from moodline.services.web.layout import frame
from moodline.services.web.words import own_path


def register() -> None:
    """Register the page at `/sign-in`."""
    ui.page("/sign-in")(show_sign_in)


def show_sign_in(next: str = "/") -> Any:
    """Build the page; `next` is where to go afterwards."""
    with frame("Sign in"):
        SignIn(own_path(next))
