"""The audit log: handlers write to it by a decorator, and admins read it."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final, ParamSpec, TypeVar, cast

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from moodline.services.api import PREFIX
from moodline.services.api.access import Admin
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.auth.audit import Change, read_changes
from moodline.services.auth.callers import Caller, Role
from moodline.services.report.moments import Time, to_datetime

router = APIRouter(prefix=PREFIX, tags=["access"])

_IN_PATH: Final = re.compile(r"\{(\w+)\}")
_REPEATED_S: Final = 60.0
_P = ParamSpec("_P")
_R = TypeVar("_R")

_EXAMPLE: Final[dict[str, Any]] = {
    "number": 12,
    "at": "2026-05-01T12:00:00Z",
    "who": "front-desk",
    "role": "operator",
    "what": "POST /streams/{stream_id}/pause",
    "ids": {"stream_id": "lobby"},
}


class ChangeAnswer(BaseModel):
    """One change."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    number: int = Field(description="Grows by one with every change.")
    at: Time
    who: str = Field(
        description="Name of the key; `local` where no key is asked for, `anonymous` where none was good, `command line` for the "
        "command itself."
    )
    role: Role | None = Field(description="Null where no key was good.")
    what: str = Field(description="The route.")
    ids: dict[str, str] = Field(description="What was changed.")


class ChangePage(BaseModel):
    """Changes, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"changes": [_EXAMPLE], "next_cursor": None}]})

    changes: list[ChangeAnswer]
    next_cursor: str | None = Field(None, description="Give it as `cursor` to get older changes; null on the last page.")


@router.get("/audit", summary="Read the audit log", responses=problem_responses("invalid_request"))
def read_audit(
    ctx: Ctx,
    caller: Admin,  # noqa: ARG001 - its role is what counts
    limit: Annotated[int, Query(ge=1, le=500, description="Most changes in the answer.")] = 100,
    cursor: Annotated[int | None, Query(ge=1, le=2**53, description="`next_cursor` of the page before.")] = None,
) -> ChangePage:
    """Return who changed what, signed in, or came with an unknown key; 100,000 entries are kept, for a year."""
    found = read_changes(ctx.store, limit + 1, cursor)
    return ChangePage(
        changes=[_answer(number, change) for number, change in found[:limit]],
        next_cursor=str(found[limit - 1][0]) if len(found) > limit else None,
    )


def audited(route: str, *more: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a handler, so that the change it has made is written to the audit log, whoever calls it.

    Args:
        route: Method and path below the API's prefix, e.g. `POST /streams/{stream_id}/pause`; ids in the path are recorded.
        more: Further parameters to record, also fields of a body (`body.id`). Never one that may be secret.

    The handler has parameters `ctx` and `caller`. One that raises has changed nothing; one may also say so by
    `nothing_changed`.
    """

    def decorate(handler: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(handler)
        names = (*_IN_PATH.findall(route), *more)

        def record(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = signature.bind(*arguments, **named).arguments
            ids = {name.rpartition(".")[2]: _value(given, name) for name in names}
            record_change(
                given["ctx"], given["caller"], route, {name: str(value) for name, value in ids.items() if value is not None}
            )

        @wraps(handler)
        def plain(*arguments: _P.args, **named: _P.kwargs) -> _R:
            with _watched() as watched:
                answer = handler(*arguments, **named)
            if watched.changed:
                record(arguments, named)
            return answer

        @wraps(handler)
        async def awaited(*arguments: _P.args, **named: _P.kwargs) -> Any:
            with _watched() as watched:
                answer = await cast(Any, handler(*arguments, **named))
            if watched.changed:
                await run_in_threadpool(record, arguments, named)
            return answer

        chosen = cast(Callable[_P, _R], awaited if inspect.iscoroutinefunction(handler) else plain)
        chosen.audited = route  # type: ignore[attr-defined]  # a test looks for it on every route that changes something
        return chosen

    return decorate


@dataclass(slots=True)
class _Watched:
    """The handler that runs; `changed` is what it says of itself."""

    changed: bool = True


_running: ContextVar[_Watched | None] = ContextVar("moodline_audited_handler", default=None)


@contextmanager
def _watched() -> Iterator[_Watched]:
    watched = _Watched()
    token = _running.set(watched)
    try:
        yield watched
    finally:
        _running.reset(token)


def nothing_changed() -> None:
    """Say, within an audited handler, that everything was as asked for already, so that there is nothing to record."""
    watched = _running.get()
    if watched is not None:
        watched.changed = False


def is_first(ctx: Context, caller: Caller, what: str, which: str) -> bool:
    """Return whether a caller does something for the first time in a minute: for what may be done often and changes nothing."""
    now_s = ctx.clock.monotonic_s()
    for key in [key for key, at_s in list(ctx.audited_at.items()) if now_s - at_s >= _REPEATED_S]:
        ctx.audited_at.pop(key, None)
    key = (caller.name, which, what)
    if key in ctx.audited_at:
        return False
    ctx.audited_at[key] = now_s
    return True


def record_change(ctx: Context, caller: Caller, what: str, ids: dict[str, str]) -> None:
    """Write a change to the audit log. Raises `StoreUnavailableError`: a change that cannot be recorded is told as failed."""
    ctx.authenticator.audit.change(caller, what, ids)


def _value(given: Any, name: str) -> Any:
    value = given
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def _answer(number: int, change: Change) -> ChangeAnswer:
    return ChangeAnswer(
        number=number, at=to_datetime(change.at_us), who=change.who, role=change.role, what=change.what, ids=change.ids
    )
