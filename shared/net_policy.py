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
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""For NAT64 inside of a network (RFC 8215). How long the prefix is there, its operator chooses (RFC 6052)."""
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_TRANSLATED: Final = ipaddress.IPv6Network("::ffff:0:0:0/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""The first half of an interface identifier whose second half is an IPv4 address (RFC 5214)."""
_METADATA: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "fd00:ec2::/32",  # Amazon, over IPv6: metadata, credentials of containers and pods, names, time
            "fd20:ce::254/128",  # Google, over IPv6
            "fd00:42::42/128",  # Scaleway, over IPv6
            "fd00:c1::a9fe:a9fe/128",  # Oracle, over IPv6
            "168.63.129.16/32",  # Azure: its agent, and a DNS server
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle, where it is not link-local
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
            address: Resolved. An IPv4 address inside an IPv6 one is what is judged; where it may be one of several, each is.
            redirected: Another host sent us there: then no loopback address is allowed.
        """
        refusals = (self._refusal(inner, address, redirected) for inner in _inner(address))
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _refusal(self, inner: Address, address: Address, redirected: bool) -> str | None:
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
    return any(inner.is_loopback for inner in _inner(address))


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
    if _is_in(inner, _METADATA):
        return "the address is one of a cloud's metadata services, which are never reached"
    if inner.is_multicast or inner.is_unspecified or inner == _BROADCAST or _is_in(inner, (_THIS_NETWORK,)):
        return "the address is no single host's"
    if inner.is_reserved and not inner.is_loopback:
        return "the address is reserved"
    return None


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _inner(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses to which an IPv6 address may lead; any other address is returned as it is.

    Mapped, compatible and translated ones, NAT64, 6to4, Teredo (both ends), and ISATAP, which is an address of its own too.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    number = int(address)
    low = number & 0xFFFFFFFF
    found: tuple[Address | None, ...] = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
    if address in _NAT64 or address in _TRANSLATED or (address in _COMPATIBLE and low > 1):
        found = (ipaddress.IPv4Address(low),)
    elif address in _NAT64_LOCAL:
        found = tuple(each for each in map(ipaddress.IPv4Address, _embedded(number)) if each not in _THIS_NETWORK)
    elif number >> 32 & 0xFFFFFFFF in _ISATAP:
        found = (address, ipaddress.IPv4Address(low))
    return tuple(each for each in found if each is not None) or (address,)


def _embedded(number: int) -> tuple[int, ...]:
    """Return the IPv4 addresses behind prefixes of 48, 56, 64 and 96 bits; bits 64 to 71 belong to none of them (RFC 6052)."""

    def bits(first: int, count: int) -> int:
        return number >> (128 - first - count) & ((1 << count) - 1)

    return (bits(48, 16) << 16 | bits(72, 16), bits(56, 8) << 24 | bits(72, 24), bits(72, 32), bits(96, 32))
