"""Admission: who asks, and how much they may send, is settled before a body is read or a handler is chosen.

The table is made from the application's routes, so a new route is in it by itself. A route whose handler takes a `Viewer`,
`Operator` or `Admin` lets nobody in without a key; every other one is open, and then takes hardly any bytes.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from moodline.services.api.bodies import whole_body
from moodline.services.api.context import context_of
from moodline.services.api.errors import refuse
from moodline.services.auth.authenticator import address_of
from moodline.services.auth.callers import LOCAL, Caller, Role
from moodline.shared.errors import BodyTooLargeError, MoodlineError, ParameterError

CALLER_KEY: Final = "moodline.caller"
"""The key of a connection's scope under which admission puts the caller."""

OPEN_BODY_BYTES: Final = 1024
"""The largest body that is read before the caller is known, in bytes."""
JSON_BODY_BYTES: Final = 128 * 1024
"""The largest body that can be meant: a key with 200 labels."""
JSON_BODY_TIMEOUT_S: Final = 10.0
JSON_BODY_QUOTES: Final = 4096
"""Quotation marks in a body. Validation tells every unknown field apart, so many small ones cost far more than one large one."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """The limits of one route.

    Attributes:
        route: The route.
        name: Method and path; the method of a web socket is `WS`.
        role: The least role that may call it; None: anybody may.
        body_bytes: Most bytes of a body that is held in memory for the handler; 0: the handler gets no body, or reads it itself,
            in which case the caller is known.
    """

    route: BaseRoute
    name: str
    role: Role | None
    body_bytes: int


def entrances(routes: Sequence[BaseRoute]) -> list[Entrance]:
    """Return the table of all routes below an application or router."""
    return [entrance for route in routes for entrance in _entrances(route)]


def _entrances(route: BaseRoute) -> Iterator[Entrance]:
    inner = getattr(route, "original_router", None)
    if inner is not None:
        yield from entrances(inner.routes)
    elif isinstance(route, APIRoute):
        role = _role(route.dependant)
        limit = 0 if route.body_field is None else OPEN_BODY_BYTES if role is None else JSON_BODY_BYTES
        for method in sorted(route.methods or ()):
            yield Entrance(route, f"{method} {route.path}", role, limit)
    elif isinstance(route, APIWebSocketRoute):
        yield Entrance(route, f"WS {route.path}", _role(route.dependant), 0)


def _role(dependant: Dependant) -> Role | None:
    roles = [role for each in dependant.dependencies if isinstance(role := getattr(each.call, "role", None), Role)]
    return roles[0] if roles else None


class Admit:
    """Middleware that asks who a caller is and takes the body, before the application parses anything."""

    def __init__(self, app: ASGIApp, owner: FastAPI) -> None:
        self._app = app
        self._owner = owner
        self._table: list[Entrance] = []
        self._routes = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        entrance = self._find(scope) if scope["type"] in ("http", "websocket") else None
        if entrance is None:
            await self._app(scope, receive, send)
            return
        with ExitStack() as place:
            try:
                await _identify(scope, entrance)
                place.enter_context(_place(scope))
                taken = await _take_body(scope, receive, entrance.body_bytes) if entrance.body_bytes else receive
            except (MoodlineError, HTTPException) as error:
                scope["route"] = entrance.route  # by which the request is counted
                connection = WebSocket(scope, receive, send) if scope["type"] == "websocket" else Request(scope)
                await refuse(connection, _typed(error, entrance), receive, send)
            else:
                await self._app(scope, taken, send)

    def _find(self, scope: Scope) -> Entrance | None:
        if self._routes != len(self._owner.routes):
            self._routes, self._table = len(self._owner.routes), entrances(self._owner.routes)
        found = (entrance for entrance in self._table if entrance.route.matches(scope)[0] is Match.FULL)
        return next(found, None)


def _typed(error: MoodlineError | HTTPException, entrance: Entrance) -> MoodlineError:
    return error if isinstance(error, MoodlineError) else _too_large(entrance.body_bytes)


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {limit_bytes} bytes, or has too many fields")


async def _identify(scope: Scope, entrance: Entrance) -> None:
    connection = HTTPConnection(scope)
    authenticator = context_of(connection).authenticator
    if entrance.role is None:
        authenticator.count_anonymous(connection)
        return
    caller: Caller = await authenticator.identify(connection)
    scope[CALLER_KEY] = caller


def _place(scope: Scope) -> AbstractContextManager[None]:
    """Hold one of the caller's places for as long as the answer takes. Raises `TooBusyError`."""
    connection = HTTPConnection(scope)
    ctx = context_of(connection)
    caller: Caller | None = scope.get(CALLER_KEY)
    who = address_of(connection) if caller is None or caller is LOCAL else f"key {caller.name}"
    return ctx.concurrency.hold(f"requests of {who}", ctx.settings.quotas.requests_per_key)


async def _take_body(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """Return a `receive` that repeats the body, once all of it has come and is not too much.

    Raises:
        BodyTooLargeError, TooSlowError
        ParameterError: a text in it cannot be written as UTF-8.
    """
    too_large = _too_large(limit_bytes)
    body = await whole_body(Request(scope, receive), limit_bytes, JSON_BODY_TIMEOUT_S, too_large)
    if body.count(b'"') > JSON_BODY_QUOTES:
        raise too_large
    _require_text(body)
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _require_text(body: bytes) -> None:
    """Raise `ParameterError` for JSON with half of a surrogate pair, which not every kind of field refuses by itself."""
    if not _MAYBE_SURROGATE.search(body):
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ParameterError("", "the body has a text that is no Unicode: half of a surrogate pair") from None
    except (ValueError, RecursionError):
        return  # no JSON at all, as validation tells


_MAYBE_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\x00")
"""Escaped, as bytes, or in UTF-16 or UTF-32, which JSON may be in."""
