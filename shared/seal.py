"""Camera credentials at rest: sealed with a key from the settings, bound to their stream.

The seal is Fernet of the package `cryptography`: AES-128-CBC with HMAC-SHA256, so what was altered is refused.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from shared.camera_url import CameraSecret
from shared.errors import SealError
from shared.settings import Settings

KEY_FILE: Final = "secret.key"
_CURE: Final = "set MOODLINE_SECRETS_KEY to the same value on the API and all ingest workers; `moodline key` makes one"


class _Sealed(msgspec.Struct, array_like=True):
    stream_id: str
    secret: CameraSecret


class Sealer:
    """Seals and opens credentials. Thread-safe.

    Args:
        keys: One key, or several with commas: the first seals, all open. Empty: nothing can be sealed or opened.

    Raises:
        SealError: a key is none.
    """

    def __init__(self, keys: str) -> None:
        parts = [part.strip() for part in keys.split(",") if part.strip()]
        try:
            self._fernet = MultiFernet([Fernet(part) for part in parts]) if parts else None
        except ValueError:
            raise SealError(f"MOODLINE_SECRETS_KEY holds something that is no key; {_CURE}") from None

    def seal(self, stream_id: str, secret: CameraSecret | None) -> str:
        """Return the credentials of a stream, sealed; "" for none. Raises `SealError` when there is no key."""
        if secret is None:
            return ""
        return self._required().encrypt(msgspec.msgpack.encode(_Sealed(stream_id, secret))).decode("ascii")

    def open(self, stream_id: str, sealed: str) -> CameraSecret | None:
        """Return what was sealed for this stream; None for "".

        Raises:
            SealError: no key, another key, or sealed for another stream.
        """
        if not sealed:
            return None
        try:
            opened = msgspec.msgpack.decode(self._required().decrypt(sealed.encode()), type=_Sealed)
        except (InvalidToken, msgspec.MsgspecError, UnicodeError):
            raise SealError(f"the camera's credentials were sealed with another key; {_CURE}") from None
        if opened.stream_id != stream_id:
            raise SealError("the camera's credentials were sealed for another stream; give them again")
        return opened.secret

    def _required(self) -> MultiFernet:
        if self._fernet is None:
            raise SealError(f"there is no key for camera passwords; {_CURE}")
        return self._fernet


def new_key() -> str:
    """Return a new random key, as `MOODLINE_SECRETS_KEY` takes it."""
    return Fernet.generate_key().decode("ascii")


def open_sealer(settings: Settings) -> Sealer:
    """Return the sealer that the settings name; the embedded service keeps a key of its own in its data directory.

    Raises:
        SealError: the key is none, or its file cannot be read or written.
    """
    keys = settings.secrets.key.get_secret_value()
    if not keys and settings.store_url().startswith("sqlite:"):
        keys = _own_key(settings.data_path())
    return Sealer(keys)


def _own_key(folder: Path) -> str:
    path = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        raise SealError(f"the key in {path} cannot be read or written; make it accessible, or {_CURE}") from None


def _create(path: Path) -> None:
    """Write a new key that only the owner may read; whoever was first wins."""
    partial = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_key() + "\n")
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
