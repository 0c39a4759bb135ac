"""Where a visitor gives a key, when the service asks for one."""

from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from services.web.elements import SignIn
from services.web.layout import frame


def register() -> None:
    """Register the page at `/sign-in`."""
    ui.page("/sign-in")(show_sign_in)


def show_sign_in(next: str = "/") -> Any:
    """Build the page; `next` is where to go afterwards."""
    with frame("Sign in"):
        SignIn(own_path(next))


def sign_in_path(asked: str) -> str:
    """Return the address of the sign-in page that leads on to a page of our own."""
    return "/sign-in?" + urlencode({"next": asked})


def own_path(path: str) -> str:
    """Return the path if it is one of this site, else that of the first page: a link must not lead visitors elsewhere."""
    is_own = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_own else "/"
