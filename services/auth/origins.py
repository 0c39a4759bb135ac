"""Hosts and origins: which are this machine's, and which belong together."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_HOST: Final = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?", re.ASCII)

_HOST_LIMIT: Final = 64


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on a host."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(name: str) -> bool:
    """Return whether a host is an address, which cannot be rebound as a name can."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def one_host(address: str) -> str:
    """Return what limits of one host go by: its address, or the network of 2**64 addresses that one host has in IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:_HOST_LIMIT]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def host_name(header: str) -> str:
    """Return the host of a `Host` header without port and brackets, or the header itself where it is none."""
    found = _HOST.fullmatch(header)
    return (found["address"] or found["name"]).lower() if found else header


def is_own_page(headers: Headers) -> bool:
    """Return whether a request comes from a page of this very service, or from no page that says where it is from."""
    origin = headers.get("origin")
    try:
        return origin is None or (urlsplit(origin).netloc or None) == headers.get("host")
    except ValueError:
        return False


def origins_of(text: str) -> tuple[str, ...]:
    """Return the origins in a setting that lists them with commas."""
    return tuple(origin.strip().rstrip("/") for origin in text.split(",") if origin.strip())


def names_of(text: str) -> tuple[str, ...]:
    """Return the host names in a setting that lists them with commas, in lower case and without ports."""
    return tuple(host_name(name.strip()).lower() for name in text.split(",") if name.strip())
