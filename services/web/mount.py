"""Putting the page onto the API's application."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Scope

from moodline.services.api.context import CONTEXT_KEY, Context
from moodline.services.web.page_authenticator import PageAuthenticator

_EXACT: Final = frozenset({"/", "/sign-in", "/favicon.ico"})
_BELOW: Final = ("/streams/", "/_nicegui", "/sign-in/")
_HOW_TO_GET_IT: Final = "This is the Moodline API. For the web page: pip install 'moodline[ui]', then restart.\n"


class _PageRoutes(Mount):
    """The page's paths alone: every other path stays the API's, with its errors in the API's one shape."""

    def __init__(self, page: ASGIApp, context: Context) -> None:
        super().__init__("/", app=PageAuthenticator(page))
        self._context = context

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in _EXACT and not path.startswith(_BELOW):
            return Match.NONE, {}
        match, child = super().matches(scope)
        return match, {**child, CONTEXT_KEY: self._context}


def mount_page(app: FastAPI) -> None:
    """Serve the page from an application of `services.api.app.create_app`. Once in a process: NiceGUI has one page tree."""
    if find_spec("nicegui") is None:
        app.add_api_route("/", _how_to_get_it, include_in_schema=False)
        return
    from nicegui import ui

    from moodline.services.web.home import register as register_home
    from moodline.services.web.stream_page import register as register_stream

    for register in (register_home, register_stream):
        register()
    ui.run_with(app, **_OPTIONS)
    mounted = app.router.routes.pop()
    assert isinstance(mounted, Mount)
    app.router.routes.append(_PageRoutes(mounted.app, app.state.context))


_OPTIONS: Final[dict[str, Any]] = {
    "title": "Moodline",
    "favicon": Path(__file__).parent / "static" / "favicon.svg",
    "dark": None,
    "language": "en-US",
    # Own style sheet: no style engine has to run in the visitor's browser.
    "tailwind": False,
    "reconnect_timeout": 20.0,
    "show_welcome_message": False,
    # Nothing is bound by polling; elements are set when something changed.
    "binding_refresh_interval": None,
}


def _how_to_get_it() -> PlainTextResponse:
    return PlainTextResponse(_HOW_TO_GET_IT)
