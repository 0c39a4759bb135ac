"""Which addresses cameras may have. Pure; resolving and connecting are ingest's."""

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class NetPolicy:
    """Allowed schemes and address ranges; built from the settings by `net_policy`."""

    schemes: frozenset[str]
    allow_loopback: bool = True
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
