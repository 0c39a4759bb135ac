"""Access to routes by role, and to streams by label.

Every handler takes a `Viewer`, `Operator` or `Admin`; a test walks through all routes and fails for one that takes none. A
stream outside of the caller's scope answers exactly as one that does not exist.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from moodline.services.api.admission import CALLER_KEY
from moodline.services.api.context import Context, context_of
from moodline.services.auth.authenticator import SESSION_COOKIE
from moodline.services.auth.callers import Caller, Role, matches
from moodline.shared.errors import NotAllowedError, StreamNotFoundError
from moodline.shared.streams import StreamSpec

__all__ = [
    "Admin",
    "Caller",
    "Operator",
    "Role",
    "Viewer",
    "describe_access",
    "identify",
    "require_all_streams",
    "require_role",
    "require_scope",
    "visible",
    "visible_streams",
]


async def identify(connection: HTTPConnection) -> Caller:
    """Return who a connection belongs to by now: for asking again while a page, an event stream or a web socket goes on.

    Raises:
        UnauthorizedError: a key is needed and none was given, or it is not good any more.
        StoreUnavailableError: keys cannot be looked up.
    """
    return await context_of(connection).authenticator.check(connection)


async def _admit(connection: HTTPConnection) -> Caller:
    known: Caller | None = connection.scope.get(CALLER_KEY)
    return known or await context_of(connection).authenticator.identify(connection)


def _at_least(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    async def caller_with_role(caller: Annotated[Caller, Depends(_admit)]) -> Caller:
        return require_role(caller, role)

    caller_with_role.role = role  # type: ignore[attr-defined]  # by which a test knows what a route asks for
    return caller_with_role


Viewer = Annotated[Caller, Depends(_at_least(Role.VIEWER))]
"""Parameter type of a handler that everybody with a key may call."""

Operator = Annotated[Caller, Depends(_at_least(Role.OPERATOR))]
"""Parameter type of a handler that changes streams or what belongs to them."""

Admin = Annotated[Caller, Depends(_at_least(Role.ADMIN))]
"""Parameter type of a handler that changes the service."""


def describe_access(app: FastAPI) -> None:
    """Add to the description of the API how a caller shows who it is."""
    describe_routes = app.openapi

    def describe() -> dict[str, Any]:
        described = describe_routes()
        described["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
            "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "For browsers."},
        }
        described["security"] = [{"key": []}, {"session": []}, {}]
        return described

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI means it to be extended


def require_role(caller: Caller, role: Role) -> Caller:
    """Return the caller. Raises `NotAllowedError` when its role may not do what this one may."""
    if not caller.role.includes(role):
        raise NotAllowedError(f"this needs the role {role}; the key {caller.name!r} has the role {caller.role}")
    return caller


def require_all_streams(caller: Caller) -> None:
    """Raise `NotAllowedError` unless the caller sees every stream: for what says something of all of them."""
    if not caller.sees_all:
        raise NotAllowedError(f"this needs a key that may see all streams; the key {caller.name!r} may see some")


def require_scope(caller: Caller, spec: StreamSpec) -> None:
    """Raise `NotAllowedError` when a definition lies outside of what the caller may see: for adding and changing streams."""
    if not caller.may_see(spec):
        scope = ", ".join(sorted((*(caller.streams or ()), *(caller.labels or ()))))
        raise NotAllowedError(f"the key {caller.name!r} may only have streams with one of these ids or labels: {scope}")


def visible(ctx: Context, caller: Caller, stream_id: str) -> StreamSpec:
    """Return a stream. Raises `StreamNotFoundError` when there is none of this id, or the caller may not see it."""
    spec = ctx.store.get(stream_id)
    if not caller.may_see(spec):
        # Word for word what the store says of a stream that does not exist.
        raise StreamNotFoundError(f"no stream {stream_id!r} is registered")
    return spec


def visible_streams(ctx: Context, caller: Caller, labels: Sequence[str] = ()) -> list[StreamSpec]:
    """Return the streams that the caller may see and that have all of these labels, ordered by id."""
    return [spec for spec in ctx.store.list_streams() if caller.may_see(spec) and matches(spec, labels)]
