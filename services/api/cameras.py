"""Checks the definition of a camera: address, credentials, transport. Secrets leave this module sealed."""

import ipaddress
from contextlib import suppress
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from moodline.services.api.access import Caller, visible
from moodline.services.api.context import Context
from moodline.services.api.media import checked_url
from moodline.services.api.models import NewCameraTest, NewStream, StreamChange
from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url import (
    MASK,
    CameraSecret,
    camera_address,
    checked_credentials,
    corrected_url,
    endpoint_of,
    register_url,
)
from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import PUSH_SCHEME, PUSH_URL, StreamSpec, is_pushed, stream_class_of_url

_NO_CAMERA: Final = "only cameras can be tried: rtsp://, rtsps://, http://, https:// or device://0"
_OF_CAMERAS: Final = ("username", "password", "transport", "tls_verify")


def meant_url(ctx: Context, given: str, lane: StreamClass | None = None) -> tuple[str, str]:
    """Return the url that was meant, and a sentence that says what was corrected; "" when nothing was.

    Args:
        ctx: For the media root.
        given: As users paste it.
        lane: Of the stream that it is for, where that is known.
    """
    url, hint = corrected_url(given)
    if not hint or lane is StreamClass.FILE or stream_class_of_url(url) is StreamClass.FILE:
        return given, ""
    if lane is None and stream_class_of_url(given) is StreamClass.FILE:
        # A folder may have an address as its name.
        with suppress(InvalidStreamError):
            checked_url(given, ctx.settings.ingest.media_root)
            return given, ""
    return url, hint


def tested_address(ctx: Context, caller: Caller, body: NewCameraTest) -> tuple[CameraAddress, str, str]:
    """Return the address of a camera that is to be tried, its url without secrets, and what was corrected in it.

    Raises:
        InvalidStreamError: as `address_fields`.
        StreamNotFoundError: there is no such stream, or the caller may not see it.
        SealError: the stream's credentials cannot be opened.
    """
    if body.stream is None:
        if body.url is None:
            raise InvalidStreamError("url", "url is required, unless stream names a registered camera")
        return _new_address(ctx, body, body.url)
    spec = visible(ctx, caller, body.stream)
    if spec.lane is StreamClass.FILE or is_pushed(spec.url):
        raise InvalidStreamError("stream", _NO_CAMERA)
    given = body.model_dump(exclude={"stream"}, exclude_none=True)
    hint = ""
    if body.url is not None:
        given["url"], hint = meant_url(ctx, body.url, spec.lane)
    changed = msgspec.structs.replace(spec, **changed_address_fields(ctx, spec, StreamChange.model_validate(given)))
    secret = ctx.sealer.open(changed.stream_id, changed.sealed) if changed.sealed else None
    return camera_address(changed, secret), changed.url, hint


def _new_address(ctx: Context, body: NewCameraTest, given: str) -> tuple[CameraAddress, str, str]:
    url, hint = meant_url(ctx, given)
    if stream_class_of_url(url) is StreamClass.FILE or is_pushed(url):
        raise InvalidStreamError("url", _NO_CAMERA)
    registered = register_url(url, username=_plain(body.username), password=_plain(body.password))
    _require_allowed(ctx, registered.url)
    spec = StreamSpec(stream_id="test", url=registered.url, lane=StreamClass.LIVE, **_given(body, "transport", "tls_verify"))
    return camera_address(spec, registered.secret), registered.url, hint


def address_fields(ctx: Context, body: NewStream) -> dict[str, Any]:
    """Return what a new stream's address is, as fields of `StreamSpec`.

    Raises:
        InvalidStreamError: names the field that cannot be used; never repeats a value.
        SealError: there are secrets, but they cannot be sealed.
    """
    lane = stream_class_of_url(body.url)
    _require_fields_of(body.url, body)
    if lane is StreamClass.FILE:
        return {"url": _checked_file(ctx, body.url), "lane": lane}
    if is_pushed(body.url):
        return {"url": _checked_push(ctx, body), "lane": lane}
    registered = register_url(body.url, username=_plain(body.username), password=_plain(body.password))
    _require_allowed(ctx, registered.url)
    sealed = ctx.sealer.seal(body.id, registered.secret) if registered.secret else ""
    return {"url": registered.url, "lane": lane, "sealed": sealed, **_given(body, "transport", "tls_verify")}


def changed_address_fields(ctx: Context, spec: StreamSpec, body: StreamChange) -> dict[str, Any]:
    """Return what changes of a stream's address. Raises as `address_fields` does."""
    _require_fields_of(spec.url, body)
    if body.url is not None and body.url != spec.url and stream_class_of_url(body.url) is not spec.lane:
        raise InvalidStreamError("url", "a file cannot become a camera, nor a camera a file; delete the stream and add it again")
    if body.url is not None and is_pushed(body.url) is not is_pushed(spec.url):
        raise InvalidStreamError("url", f"only a stream that was added as {PUSH_URL} has that url; add another stream")
    if is_pushed(spec.url):
        return {"url": spec.url if body.url is None else _checked_push(ctx, body)}
    if spec.lane is StreamClass.FILE:
        return {} if body.url is None else {"url": _checked_file(ctx, body.url)}
    changes = _given(body, "transport", "tls_verify")
    # Asking again for the address as it is shown changes nothing: what is masked in it stays.
    url = None if body.url == spec.url else body.url
    if url is not None or body.username is not None or body.password is not None:
        changes |= _relocated(ctx, spec, url, _plain(body.username), _plain(body.password))
    return changes


def _relocated(ctx: Context, spec: StreamSpec, url: str | None, username: str | None, password: str | None) -> dict[str, Any]:
    """Return url and sealed secret. What is known stays only for the same scheme, host and port: no other gets the password."""
    known = CameraSecret()
    replaced = username is not None and (password is not None or username == "")
    stays = url is None or endpoint_of(url) == endpoint_of(spec.url)
    needed = MASK in spec.url if replaced and url is None else not replaced
    if stays and needed:
        known = ctx.sealer.open(spec.stream_id, spec.sealed) or known
    if url is None:
        shown, target, own = spec.url, known.target, None
    else:
        registered = register_url(url)
        own = registered.secret if registered.secret and registered.secret.has_credentials else None
        shown, target = registered.url, registered.secret.target if registered.secret else None
        _require_allowed(ctx, shown)
    if own is not None:
        if username is not None or password is not None:
            raise InvalidStreamError(
                "url", "credentials are given twice: leave them out of the url, or out of username and password"
            )
        user, word = own.username, own.password
    elif username == "" and not password:
        user, word = None, None
    else:
        user = known.username if username is None else username
        word = known.password if password is None else password
        if username is not None or password is not None:
            user, word = checked_credentials(shown, user, word)
    secret = CameraSecret(username=user, password=word, target=target)
    return {"url": shown, "sealed": "" if secret == CameraSecret() else ctx.sealer.seal(spec.stream_id, secret)}


def _require_fields_of(url: str, body: NewStream | StreamChange) -> None:
    lane = stream_class_of_url(url)
    if lane is StreamClass.LIVE:
        if body.recorded_at is not None:
            raise InvalidStreamError("recorded_at", "a camera's timeline is in the present; recorded_at is for files")
        if not is_pushed(url):
            return
    for name in _OF_CAMERAS:
        if getattr(body, name) is not None:
            raise InvalidStreamError(name, f"{name} is for cameras; leave it out")


def _require_allowed(ctx: Context, url: str) -> None:
    scheme, host, _port = endpoint_of(url)
    _require_scheme(ctx, scheme)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name, or a number in another spelling: judged by what it resolves to, whenever it is connected to.
        return
    refusal = ctx.policy.refusal(address)
    if refusal is not None:
        raise InvalidStreamError("url", f"url names an address that may not be read: {refusal}")


def _require_scheme(ctx: Context, scheme: str) -> None:
    if not ctx.policy.allows_scheme(scheme):
        raise InvalidStreamError("url", "url has a scheme that is not allowed here (MOODLINE_INGEST_SCHEMES)")


def _checked_file(ctx: Context, given: str) -> str:
    url = checked_url(given, ctx.settings.ingest.media_root)
    _require_scheme(ctx, url.partition(":")[0])
    return url


def _checked_push(ctx: Context, body: NewStream | StreamChange) -> str:
    if body.url != PUSH_URL:
        raise InvalidStreamError("url", f"a stream whose frames are pushed has the url {PUSH_URL}")
    _require_scheme(ctx, PUSH_SCHEME)
    return PUSH_URL


def _given(body: NewStream | StreamChange | NewCameraTest, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(body, name)) is not None}


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
