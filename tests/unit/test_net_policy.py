"""Which addresses cameras may have, whatever an address is dressed up as."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.errors import SettingsError
from moodline.shared.net_policy import NetPolicy, net_policy_of

OPEN = net_policy_of("rtsp,http", True, "", "")
NEVER = ["169.254.169.254", "169.254.0.1", "fe80::1", "fd00:ec2::254", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "0.1.2.3"]
NEVER += ["255.255.255.255", "240.0.0.1"]


def dressed(inner: IPv4Address) -> list[IPv6Address]:
    """The IPv6 addresses that lead to an IPv4 address: mapped, NAT64, 6to4, Teredo."""
    number = int(inner)
    teredo = (0x20010000 << 96) | (int(IPv4Address("65.54.227.120")) << 64) | (number ^ 0xFFFFFFFF)
    return [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address(teredo),
    ]


@pytest.mark.parametrize("text", NEVER)
def test_nobodys_camera_is_there(text: str) -> None:
    assert OPEN.refusal(ip_address(text)) is not None


@pytest.mark.parametrize("text", ["10.0.0.7", "192.168.1.2", "172.16.0.1", "8.8.8.8", "fd00::7", "2001:4860:4860::8888"])
def test_private_and_public_addresses_are_usual(text: str) -> None:
    assert OPEN.refusal(ip_address(text)) is None
    assert OPEN.refusal(ip_address(text), redirected=True) is None


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_a_setting_and_never_the_end_of_a_redirect(text: str) -> None:
    closed = net_policy_of("http", False, "", "")
    assert OPEN.refusal(ip_address(text)) is None
    assert OPEN.refusal(ip_address(text), redirected=True) is not None
    assert "MOODLINE_INGEST_ALLOW_LOOPBACK" in str(closed.refusal(ip_address(text)))


@given(st.ip_addresses(v=4), st.booleans())
def test_a_disguise_changes_nothing(inner: IPv4Address, redirected: bool) -> None:
    policy = net_policy_of("http", False, "", "10.0.0.0/8")
    for address in dressed(inner):
        assert policy.refusal(address, redirected=redirected) == policy.refusal(inner, redirected=redirected)


def test_networks_limit_and_deny() -> None:
    policy = net_policy_of("http", True, "10.0.0.0/8, fd00::/8", "10.1.0.0/16")
    assert policy.refusal(ip_address("10.2.0.1")) is None
    assert policy.refusal(ip_address("fd00::2")) is None
    assert "DENY_NETWORKS" in str(policy.refusal(ip_address("10.1.0.1")))
    assert "ALLOW_NETWORKS" in str(policy.refusal(ip_address("192.168.0.1")))


@pytest.mark.parametrize("index", [0, 1])
def test_a_bad_network_names_its_variable(index: int) -> None:
    networks = ["", ""]
    networks[index] = "10.0.0.0/33"
    with pytest.raises(SettingsError, match=("MOODLINE_INGEST_ALLOW_NETWORKS", "MOODLINE_INGEST_DENY_NETWORKS")[index]):
        net_policy_of("http", True, *networks)


def test_schemes_are_listed_with_commas() -> None:
    policy: NetPolicy = net_policy_of(" HTTP, rtsp ,", True, "", "")
    assert policy.allows_scheme("http")
    assert not policy.allows_scheme("file")
