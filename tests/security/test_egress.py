"""Where cameras and webhooks must not lead, however the address is written."""

import socket
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from moodline.services.alerts.webhook import checked_target, webhook_policy
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.shared.errors import InvalidRuleError, SourceError
from moodline.shared.net_policy import net_policy_of
from moodline.shared.settings import AlertsSettings

CLOUDS = [
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe",
]
CLOUDS += ["169.254.170.2", "169.254.0.23", "::ffff:168.63.129.16", "64:ff9b::100.100.100.200"]
CLOUDS += ["fd00:ec2::23", "fd00:ec2::253", "fd00:42::42", "fd00:c1::a9fe:a9fe", "::ffff:0:169.254.169.254", "::168.63.129.16"]
CLOUDS += ["2002:a9fe:a9fe::", "2002:a83f:8110::1", "2001:db8::5efe:169.254.169.254", "2a00:1:2:3:200:5efe:168.63.129.16"]
# A network's own NAT64, with prefixes of 96, 64, 56 and 48 bits.
CLOUDS += ["64:ff9b:1::169.254.169.254", "64:ff9b:1::a9:fea9:fe00:0", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:a9fe:a9:fe00::"]
PRIVATE = ["10.0.0.7", "192.168.1.2", "172.16.0.1", "100.64.0.1", "fd00::7", "::ffff:10.0.0.7", "198.18.0.1"]


@pytest.mark.parametrize("text", CLOUDS)
@pytest.mark.parametrize("networks", ["", "0.0.0.0/0,::/0"])
def test_no_camera_and_no_webhook_is_a_clouds_metadata(text: str, networks: str) -> None:
    cameras = net_policy_of("http", True, networks, "")
    webhooks = webhook_policy(AlertsSettings(webhook_allow_networks=networks, webhook_allow_private=True))
    for policy in (cameras, webhooks):
        assert policy.refusal(ip_address(text)) is not None
        if isinstance(ip_address(text), IPv4Address):
            assert policy.refusal(IPv6Address(f"::ffff:{text}")) is not None


@pytest.mark.parametrize("text", PRIVATE)
def test_webhooks_go_to_no_private_network_unless_that_is_set(text: str) -> None:
    assert webhook_policy(AlertsSettings()).refusal(ip_address(text)) is not None
    assert webhook_policy(AlertsSettings(webhook_allow_private=True)).refusal(ip_address(text)) is None
    assert net_policy_of("rtsp", True, "", "").refusal(ip_address(text)) is None
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(InvalidRuleError):
        checked_target(f"http://{host}/hook", webhook_policy(AlertsSettings()))


@pytest.mark.parametrize("text", ["64:ff9b:1::93.184.216.34", "64:ff9b::93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_what_leads_into_the_internet_is_allowed(text: str) -> None:
    assert net_policy_of("rtsp", False, "", "").refusal(ip_address(text)) is None


def test_one_private_network_can_be_allowed_by_itself() -> None:
    policy = webhook_policy(AlertsSettings(webhook_allow_networks="10.1.0.0/16"))
    assert policy.refusal(ip_address("10.1.2.3")) is None
    assert policy.refusal(ip_address("10.2.2.3")) is not None


@pytest.mark.parametrize("networks", [("10.9.0.0/16", ""), ("", "127.0.0.0/8")])
def test_of_an_address_outside_of_the_allowed_networks_nothing_is_told(networks: tuple[str, str]) -> None:
    """Neither whether a port is open, nor by the time that it takes: no connection is tried."""
    tried: list[object] = []
    egress = PolicyEgress(net_policy_of("rtsp", False, *networks), resolver=lambda host, _port: ["127.0.0.1"])
    with closing(socket.create_server(("127.0.0.1", 0))) as listening, pytest.MonkeyPatch.context() as patch:
        is_open = listening.getsockname()[1]
        patch.setattr(socket, "create_connection", lambda *given, **_named: tried.append(given))
        said = set()
        for host in ("127.0.0.1", "camera.example"):
            for port in (is_open, 1):
                with pytest.raises(SourceError) as refused:
                    egress.connect(host, port, 5.0)
                said.add((refused.value.reason, str(refused.value)))
    assert tried == []
    assert len(said) == 1


def test_the_internet_is_where_webhooks_go() -> None:
    assert webhook_policy(AlertsSettings()).refusal(ip_address("203.0.113.9")) is not None  # documentation's, nobody's
    assert webhook_policy(AlertsSettings()).refusal(ip_address("93.184.216.34")) is None
