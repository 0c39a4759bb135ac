"""Names are resolved once, every answer is judged, and only what was judged is connected to."""

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of

POLICY = net_policy_of("http", True, "", "")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Answers:
    """A resolver whose answers change."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.left = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.left.pop(0)


def refusal(egress: PolicyEgress, host: str, port: int = 80, timeout_s: float = 2.0, via: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as caught:
        egress.connect(host, port, timeout_s, redirected_from=via)
    return caught.value


def test_the_second_answer_of_a_name_is_never_used(port: int) -> None:
    answers = Answers(["127.0.0.1"], ["169.254.169.254"])
    with PolicyEgress(POLICY, resolver=answers).connect("cam.test", port, 2.0) as connected:
        assert connected.getpeername()[:2] == ("127.0.0.1", port)
    assert answers.asked == 1


def test_refused_addresses_are_left_out(port: int) -> None:
    egress = PolicyEgress(POLICY, resolver=Answers(["169.254.169.254", "127.0.0.1"]))
    with egress.connect("cam.test", port, 2.0) as connected:
        assert connected.getpeername()[0] == "127.0.0.1"


def test_a_name_with_refused_addresses_only_is_forbidden() -> None:
    error = refusal(PolicyEgress(POLICY, resolver=Answers(["169.254.169.254", "fe80::1%eth0"])), "cam.test")
    assert error.reason == "forbidden_url"
    assert "cam.test" not in str(error)


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "127.1", "0177.0.0.1", "127.0.0.1", "::1", "localhost"])
def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    egress = PolicyEgress(net_policy_of("http", False, "", ""))
    assert refusal(egress, host).reason == "forbidden_url"


@pytest.mark.parametrize("host", ["0xa9fea9fe", "2852039166", "169.254.43518", "::ffff:169.254.169.254"])
def test_link_local_is_refused_however_it_is_written(host: str) -> None:
    assert refusal(PolicyEgress(POLICY), host).reason == "forbidden_url"


def test_a_redirect_to_loopback_is_refused_unless_it_comes_from_there(port: int) -> None:
    egress = PolicyEgress(POLICY)
    assert refusal(egress, "127.0.0.1", port, via="cam.test").reason == "forbidden_url"
    egress.connect("127.0.0.1", port, 2.0).close()
    egress.connect("localhost", port, 2.0, redirected_from="127.0.0.1").close()


def test_a_resolver_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> Sequence[str]:
        release.wait(10)
        return []

    try:
        assert refusal(PolicyEgress(POLICY, resolver=hang), "cam.test", timeout_s=0.05).reason == "timeout"
    finally:
        release.set()


def test_unknown_names_and_closed_ports_are_unreachable(port: int) -> None:
    assert refusal(PolicyEgress(POLICY, resolver=Answers([])), "cam.test").reason == "unreachable"
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    assert refusal(PolicyEgress(POLICY), "127.0.0.1", closed).reason == "unreachable"
