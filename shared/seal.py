"""Seals camera credentials at rest: Fernet (AES-128-CBC and HMAC-SHA256), bound to the stream that they belong to."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import SealError
from moodline.shared.settings import Settings

KEY_FILE: Final = "secret.key"
_PURPOSE: Final = "moodline camera 1"
_MISSING: Final = (
    "camera passwords need a key: set MOODLINE_SECRETS_KEY to the same value on the API and ingest workers; "
    "`moodline key` makes one"
)
_WRONG: Final = (
    "the sealed camera password cannot be opened with this key: set MOODLINE_SECRETS_KEY to the key it was sealed with (several "
    "with commas), or give the camera's credentials again"
)

KeySource = Callable[[bool], str]
"""Returns keys with commas, "" where there are none; when its argument is true, it may make one first."""


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    purpose: str
    stream_id: str
    username: str | None
    password: str | None
    target: str | None


class Sealer:
    """Seals with the first key, opens with any. Thread-safe; keys are asked for when they are first needed."""

    def __init__(self, keys: str | KeySource) -> None:
        self._keys: KeySource = (lambda _create: keys) if isinstance(keys, str) else keys
        self._lock = Lock()
        # A wrong setting is reported at the start. A missing key, or a key file, is reported when it is first needed.
        self._fernet = _fernet(keys) if isinstance(keys, str) and keys else None

    def __repr__(self) -> str:
        return "Sealer()"

    def seal(self, stream_id: str, secret: CameraSecret | None) -> str:
        """Return the secret as text that only the key opens, and only for this stream; "" for None.

        Raises:
            SealError: there is no key, or it is none.
        """
        if secret is None:
            return ""
        content = _Sealed(_PURPOSE, stream_id, secret.username, secret.password, secret.target)
        return self._with_keys(create=True).encrypt(msgspec.msgpack.encode(content)).decode("ascii")

    def open(self, stream_id: str, sealed: str) -> CameraSecret | None:
        """Return what was sealed; None for "".

        Raises:
            SealError: the key is missing or another one, or the text is altered or was sealed for another stream.
        """
        if not sealed:
            return None
        fernet = self._with_keys(create=False)
        try:
            content = msgspec.msgpack.decode(fernet.decrypt(sealed.encode()), type=_Sealed)
        except (InvalidToken, msgspec.MsgspecError, UnicodeError):
            raise SealError(_WRONG) from None
        if (content.purpose, content.stream_id) != (_PURPOSE, stream_id):
            raise SealError("the sealed camera password belongs to another stream; give the camera's credentials again")
        return CameraSecret(username=content.username, password=content.password, target=content.target)

    def _with_keys(self, *, create: bool) -> MultiFernet:
        with self._lock:
            if self._fernet is None:
                self._fernet = _fernet(self._keys(create))
            return self._fernet


def new_key() -> str:
    """Return a new random key, as `MOODLINE_SECRETS_KEY` takes it: 32 bytes in URL-safe base64."""
    return Fernet.generate_key().decode("ascii")


def open_sealer(settings: Settings) -> Sealer:
    """Return the sealer of the settings. Reads and writes no file yet.

    Without a key in the settings, the embedded service (SQLite) keeps one in `secret.key` in the data directory, mode 0600,
    made when the first secret is sealed; a distributed one raises `SealError` once something must be sealed or opened.

    Raises:
        SealError: the setting holds what is no key.
    """
    given = settings.secrets.key.get_secret_value()
    if given:
        return Sealer(given)
    if settings.store_url().startswith("sqlite:"):
        path = settings.data_path() / KEY_FILE
        return Sealer(lambda create: _key_of_file(path, create=create))
    return Sealer("")


def _fernet(keys: str) -> MultiFernet:
    parts = [part.strip() for part in keys.split(",") if part.strip()]
    if not parts:
        raise SealError(_MISSING)
    try:
        return MultiFernet([Fernet(part) for part in parts])
    except ValueError:
        raise SealError("MOODLINE_SECRETS_KEY (or secret.key) holds what is no key; `moodline key` makes one") from None


def _key_of_file(path: Path, *, create: bool) -> str:
    try:
        if create and not path.exists():
            _make_key_file(path)
        return path.read_text("ascii") if path.exists() else ""
    except (OSError, UnicodeError):
        raise SealError(
            f"the key of camera passwords, {path}, cannot be read or made; check its permissions, or set MOODLINE_SECRETS_KEY"
        ) from None


def _make_key_file(path: Path) -> None:
    """The first process wins; no process ever reads half a key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
