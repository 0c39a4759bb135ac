"""The address of a broker: `mqtt://user:password@host:1883`, `mqtts://` for TLS."""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from moodline.shared.errors import SettingsError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class BrokerAddress(NamedTuple):
    """Host and port, whether TLS is spoken, and the credentials where there are some."""

    host: str
    port: int
    uses_tls: bool
    username: str | None
    password: str | None

    def shown(self) -> str:
        """Return it for logs, without credentials."""
        return f"{'mqtts' if self.uses_tls else 'mqtt'}://{self.host}:{self.port}"


def parse_broker(url: str) -> BrokerAddress:
    """Return a broker's address.

    Raises:
        SettingsError: it is none. Never repeats the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refuse() from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or port == 0:
        raise _refuse()
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return BrokerAddress(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts", username, password)


def _refuse() -> SettingsError:
    return SettingsError(
        "MOODLINE_MQTT_URL looks like mqtt://user:password@host:1883, or mqtts:// for TLS; special characters as %40"
    )
