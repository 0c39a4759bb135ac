"""Routes of API keys, and of sessions that browsers hold instead of a key."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.concurrency import run_in_threadpool

from moodline.services.api import PREFIX
from moodline.services.api.access import Admin, Viewer
from moodline.services.api.audit import audited
from moodline.services.api.context import Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.given_time import GivenTime, given_us
from moodline.services.auth.authenticator import SESSION_COOKIE, address_of
from moodline.services.auth.callers import LOCAL, Caller, Role
from moodline.services.auth.keyring import KeyInfo, KeyRecord
from moodline.services.report.moments import Time, to_datetime

router = APIRouter(prefix=PREFIX, tags=["access"])

_SCOPE: Final[dict[str, Any]] = {"streams": None, "labels": ["site=berlin"]}
_NEW: Final[dict[str, Any]] = {"name": "front-desk", "role": "viewer", **_SCOPE, "expires_at": "2027-05-01T00:00:00Z"}
_KEPT: Final[dict[str, Any]] = {
    **_NEW,
    "prefix": "mdl_5f21c09ab3d4",
    "created_at": "2026-05-01T12:00:00Z",
    "last_used": "2026-05-01T12:30:00Z",
}
_STREAMS: Final = "Ids of streams that it is limited to."
_LABELS: Final = "Labels, as `key=value` or `key`: it is limited to streams with one of them, and to those of `streams`."


class NewKey(BaseModel):
    """A key to make. Without `streams` and `labels` its holder sees every stream."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_NEW]})

    name: str = Field(max_length=63, description="Who is going to use it; unique, and shown in the audit log.")
    role: Role = Field(description="What its holder may do.")
    streams: list[str] | None = Field(None, max_length=200, description=_STREAMS)
    labels: list[str] | None = Field(None, max_length=200, description=_LABELS)
    expires_at: GivenTime | None = Field(None, description="From when on it is worth nothing.")


class KeyAnswer(BaseModel):
    """A key, without what is secret of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEPT]})

    name: str
    role: Role
    streams: list[str] | None = Field(description=_STREAMS)
    labels: list[str] | None = Field(description=_LABELS)
    expires_at: Time | None
    prefix: str = Field(description="How the key begins.")
    created_at: Time
    last_used: Time | None = Field(description="When it was last used, to the minute.")


class NewKeyAnswer(KeyAnswer):
    """A new key. This is the only time that it is shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_KEPT, "last_used": None, "key": "mdl_5f21c09ab3d4_rM1Zr0xT3qkz1vQhX2b7Zt0y5cW8nJ4dLq6uPfEaGsI"}]
        }
    )

    key: str = Field(description="The key itself. It is not kept; only its hash is.")


class KeyPage(BaseModel):
    """All keys, ordered by name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keys": [_KEPT]}]})

    keys: list[KeyAnswer]


class NewSession(BaseModel):
    """A key to sign in with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"key": "mdl_…"}]})

    key: SecretStr = Field(max_length=200, description="The key.")


class CallerAnswer(BaseModel):
    """The caller: its role, and the streams that it may see."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "front-desk", "role": "viewer", **_SCOPE, "open": False}]})

    name: str = Field(description="Name of the key; `local` where none is asked for.")
    role: Role
    streams: list[str] | None = Field(description=_STREAMS)
    labels: list[str] | None = Field(description=_LABELS)
    open: bool = Field(description="Whether this service asks for no key.")


@router.get("/keys", summary="List keys")
def list_keys(ctx: Ctx, caller: Admin) -> KeyPage:  # noqa: ARG001 - its role is what counts
    """Return all keys, without what is secret of them."""
    return KeyPage(keys=[_answer(info) for info in ctx.authenticator.keyring.list_keys()])


@router.post(
    "/keys",
    status_code=201,
    summary="Make a key",
    responses=problem_responses("key_exists", "invalid_key", "invalid_request", "body_too_large"),
)
@audited("POST /keys", "body.name")
def add_key(ctx: Ctx, caller: Admin, body: NewKey) -> NewKeyAnswer:  # noqa: ARG001 - its role is what counts
    """Make a key. The answer is the only place where it is ever shown."""
    record, key = ctx.authenticator.keyring.add(
        KeyRecord(
            name=body.name,
            role=body.role,
            digest="",
            streams=None if body.streams is None else tuple(body.streams),
            labels=None if body.labels is None else tuple(body.labels),
            expires_at_us=None if body.expires_at is None else given_us(body.expires_at, ctx.now_us(), "expires_at"),
        )
    )
    ctx.authenticator.forget()
    return NewKeyAnswer(**_answer(KeyInfo(record, None)).model_dump(), key=key)


@router.delete(
    "/keys/{name}", status_code=204, response_class=Response, summary="Remove a key", responses=problem_responses("key_not_found")
)
@audited("DELETE /keys/{name}")
def remove_key(ctx: Ctx, caller: Admin, name: str) -> None:  # noqa: ARG001 - its role is what counts
    """Remove a key, and end the sessions that it opened. Other processes of the API refuse it within 2 s."""
    ctx.authenticator.keyring.remove(name)
    ctx.authenticator.forget()


@router.get("/session", summary="Who am I?")
async def get_session(caller: Viewer) -> CallerAnswer:
    """Return who asks, and what they may do and see."""
    return _caller(caller)


@router.post("/session", summary="Sign in with a browser", responses=problem_responses("invalid_request", "body_too_large"))
async def open_session(ctx: Ctx, request: Request, response: Response, body: NewSession) -> CallerAnswer:
    """Exchange a key for a cookie, which pages, event streams and web sockets of a browser then bring along by themselves."""
    record = await ctx.authenticator.sign_in(body.key.get_secret_value(), address_of(request))
    lifetime_s = ctx.settings.api.session_s
    limit = ctx.settings.quotas.sessions_per_key
    session = await run_in_threadpool(ctx.authenticator.keyring.open_session, record, lifetime_s, limit)
    await run_in_threadpool(ctx.authenticator.audit.signed, record.caller(), "POST /session", address_of(request))
    response.set_cookie(
        SESSION_COOKIE,
        session,
        max_age=lifetime_s,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _caller(record.caller())


@router.delete("/session", status_code=204, response_class=Response, summary="Sign out")
async def close_session(ctx: Ctx, request: Request) -> Response:
    """End the session of the cookie, if there is one, and take the cookie away."""
    session = request.cookies.get(SESSION_COOKIE)
    # A cookie that was never given out ends nothing: else anybody could make every caller be looked up again.
    record = await run_in_threadpool(ctx.authenticator.keyring.close_session, session) if session else None
    if record is not None:
        ctx.authenticator.forget()
        await run_in_threadpool(ctx.authenticator.audit.signed, record.caller(), "DELETE /session", address_of(request))
    answer = Response(status_code=204)
    answer.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


def _answer(info: KeyInfo) -> KeyAnswer:
    record = info.record
    return KeyAnswer(
        name=record.name,
        role=record.role,
        streams=None if record.streams is None else list(record.streams),
        labels=None if record.labels is None else list(record.labels),
        expires_at=None if record.expires_at_us is None else to_datetime(record.expires_at_us),
        prefix=record.prefix,
        created_at=to_datetime(record.created_at_us),
        last_used=None if info.last_used_us is None else to_datetime(info.last_used_us),
    )


def _caller(caller: Caller) -> CallerAnswer:
    return CallerAnswer(
        name=caller.name,
        role=caller.role,
        streams=None if caller.streams is None else sorted(caller.streams),
        labels=None if caller.labels is None else list(caller.labels),
        open=caller is LOCAL,
    )
