"""Finding ONVIF cameras on the local network, by `onveef`'s WS-Discovery. Whoever is on the network may answer."""

import ipaddress
from dataclasses import dataclass
from typing import Final

from onveef import wsdiscovery

from moodline.shared.camera_url import endpoint_of, register_url
from moodline.shared.errors import InvalidStreamError
from moodline.shared.net_policy import NetPolicy

_DEVICES_LIMIT: Final = 512
_TEXT_LIMIT: Final = 64
_ADDRESSES_LIMIT: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What answered. `service` is the URL of its device service; `note` says why it cannot be used, "" when it can."""

    name: str
    hardware: str
    service: str
    note: str = ""


def discover(
    policy: NetPolicy,
    seconds: float,
    *,
    interface: str | None = None,
    host: str | None = None,
    port: int = wsdiscovery.WS_DISCOVERY_PORT,
) -> list[Found]:
    """Ask the local network, or one host, and return what answers, ordered by address. Blocks for `seconds` per interface.

    Args:
        policy: Judges the addresses in the answers.
        seconds: How long answers are waited for.
        interface: Address of the interface to ask from; all of them by default.
        host: Ask this address alone, where the network carries no multicast.
        port: Of that host.
    """
    if host is not None:
        answered = wsdiscovery.probe_device(host, timeout_s=seconds, port=port)
    else:
        answered = wsdiscovery.discover(timeout_s=seconds, interface_ip=interface)
    found = {each.service or each.name: each for device in answered[:_DEVICES_LIMIT] if (each := found_in(device, policy))}
    return [found[key] for key in sorted(found)]


def found_in(device: wsdiscovery.DiscoveredDevice, policy: NetPolicy) -> Found | None:
    """Return one answer in a form that may be shown; None where it names no address at all."""
    refused = ""
    for address in device.xaddrs[:_ADDRESSES_LIMIT]:
        try:
            shown = register_url(address).url
            scheme, host, _ = endpoint_of(shown)
        except InvalidStreamError:
            continue
        if scheme not in ("http", "https"):
            continue
        refusal = _refusal(host, policy)
        if refusal is None:
            return Found(_text(device.name), _text(device.hardware), shown)
        refused = refused or refusal
    return Found(_text(device.name), _text(device.hardware), "", refused) if refused else None


def _refusal(host: str, policy: NetPolicy) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return policy.refusal(address)


def _text(value: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in value[:_TEXT_LIMIT])
