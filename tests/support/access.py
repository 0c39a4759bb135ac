"""Keys for tests, and a walk through every route that an application has."""

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute
from starlette.types import Message

from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import KeyRecord, Keyring
from tests.support.api import ApiWorld


class Rule(NamedTuple):
    """A route as a caller meets it. `role` is the least that may call it, None: anybody; `audited`: what the log calls it."""

    method: str
    path: str
    role: Role | None
    audited: str | None
    route: BaseRoute


def rules(app: FastAPI) -> list[Rule]:
    """Return every route of an application; the method of web sockets is `WS`."""
    return [rule for route in app.routes for rule in _rules(route)]


def _rules(route: BaseRoute) -> Iterator[Rule]:
    inner = getattr(route, "original_router", None)
    if inner is not None:
        for each in inner.routes:
            yield from _rules(each)
    elif isinstance(route, APIRoute):
        for method in sorted(route.methods):
            yield Rule(method, route.path, _role(route.dependant), getattr(route.endpoint, "audited", None), route)
    elif isinstance(route, APIWebSocketRoute):
        yield Rule("WS", route.path, _role(route.dependant), None, route)
    else:
        for method in sorted(getattr(route, "methods", None) or {"GET"}):
            yield Rule(method, getattr(route, "path", repr(route)), None, None, route)


def _role(dependant: Dependant) -> Role | None:
    found = [getattr(each.call, "role", None) for each in dependant.dependencies]
    roles = [role for role in found if isinstance(role, Role)]
    assert len(roles) <= 1
    return roles[0] if roles else None


def make_key(world: ApiWorld, name: str, role: Role, **limits: Any) -> str:
    """Make a key and return it."""
    return Keyring(world.store, world.clock).add(KeyRecord(name=name, role=role, digest="", **limits))[1]


def with_key(world: ApiWorld, key: str) -> httpx.Client:
    """Return the world's client with a key."""
    return httpx.Client(
        transport=world.http._transport, base_url="http://localhost", headers={"authorization": f"Bearer {key}"}, trust_env=False
    )


def socket_messages(app: FastAPI, path: str, headers: dict[str, str]) -> list[Message]:
    """Open a web socket and leave as soon as the application has said a word; return what it said."""
    said: list[Message] = []
    received = [{"type": "websocket.connect"}]
    heard = asyncio.Event()

    async def receive() -> Message:
        if received:
            return received.pop()
        await heard.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        said.append(message)
        if message["type"] != "websocket.accept":
            heard.set()

    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "ws",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    return said
