"""The policy of addresses that cameras and webhooks may have. Pure; whoever resolves a name connects to what was judged.

What counts is the address that a name or an oddly written number resolves to, never how it is written.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

from moodline.shared.errors import SettingsError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        (
            "fd00:ec2::254",  # Amazon, over IPv6
            "fd20:ce::254",  # Google, over IPv6
            "168.63.129.16",  # Azure: its agent, and a DNS server
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle, where it is not link-local
        ),
    )
)
"""Addresses at which clouds give a machine its credentials, besides link-local addresses, which most of them use."""
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class NetPolicy:
    """Allowed schemes and address ranges; built from the settings by `net_policy_of`."""

    schemes: frozenset[str]
    allow_loopback: bool = True
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    allow_private: bool = True
    variable: str = "MOODLINE_INGEST"
    """The prefix of the settings that the policy was made from."""

    def allows_scheme(self, scheme: str) -> bool:
        """Say whether URLs of a scheme, in lower case, may be read."""
        return scheme in self.schemes

    def refusal(self, address: Address, *, redirected: bool = False) -> str | None:
        """Return why an address may not be connected to, as one sentence that names the setting, or None.

        Args:
            address: Resolved. An IPv4 address inside an IPv6 one is what is judged.
            redirected: Another host sent us there: then no loopback address is allowed.
        """
        inner = _innermost(address)
        if (never := _never(inner)) is not None:
            return never
        if inner.is_loopback and redirected:
            return "the camera sends us to a loopback address"
        if inner.is_loopback and not self.allow_loopback:
            return f"loopback addresses are not allowed ({self.variable}_ALLOW_LOOPBACK)"
        return self._outside(inner, address)

    def _outside(self, inner: Address, address: Address) -> str | None:
        """Return in which network an address is or is not that keeps it from being reached, or None."""
        if _is_in(inner, self.deny) or _is_in(address, self.deny):
            return f"the address is in a denied network ({self.variable}_DENY_NETWORKS)"
        if self._is_allowed(inner, address):
            return None
        if not (self.allow_private or inner.is_global or inner.is_loopback):
            return f"the address is in a private network, and none is allowed ({self.variable}_ALLOW_PRIVATE)"
        return f"the address is outside of the allowed networks ({self.variable}_ALLOW_NETWORKS)" if self.allow else None

    def _is_allowed(self, inner: Address, address: Address) -> bool:
        return _is_in(inner, self.allow) or _is_in(address, self.allow)


def net_policy_of(
    schemes: str,
    allow_loopback: bool,
    allow_networks: str,
    deny_networks: str,
    *,
    allow_private: bool = True,
    variable: str = "MOODLINE_INGEST",
) -> NetPolicy:
    """Build the policy from the settings of the same names in `IngestSettings`; `variable` is how theirs begin.

    Raises:
        SettingsError: names the variable that cannot be used.
    """
    return NetPolicy(
        frozenset(part.strip().lower() for part in schemes.split(",") if part.strip()),
        allow_loopback,
        _networks(allow_networks, f"{variable}_ALLOW_NETWORKS"),
        _networks(deny_networks, f"{variable}_DENY_NETWORKS"),
        allow_private,
        variable,
    )


def is_loopback(address: Address) -> bool:
    """Say whether an address, or the IPv4 address inside it, is this machine's own."""
    return _innermost(address).is_loopback


def _networks(text: str, variable: str) -> tuple[Network, ...]:
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise SettingsError(f"{variable} holds networks such as 10.0.0.0/8 or fd00::/8, with commas") from None
    return tuple(networks)


def _never(inner: Address) -> str | None:
    """Return why an address is never reached, or None."""
    if inner.is_link_local:
        return "the address is link-local, which is never reached"
    if inner in _METADATA:
        return "the address is one of a cloud's metadata services, which are never reached"
    if inner.is_multicast or inner.is_unspecified or inner == _BROADCAST or _is_in(inner, (_THIS_NETWORK,)):
        return "the address is no single host's"
    if inner.is_reserved and not inner.is_loopback:
        return "the address is reserved"
    return None


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _innermost(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to (mapped, compatible, NAT64, 6to4, Teredo), else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (address in _COMPATIBLE and low > 1):
        return ipaddress.IPv4Address(low)
    return address
