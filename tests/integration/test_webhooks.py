"""Webhooks against a real HTTP server: signed, tried again, never redirected, never to where they may not go."""

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from moodline.services.alerts.outbox import DeliveryRecord, Outbox
from moodline.services.alerts.records import DELIVERY_LOG, RuleBook, decode
from moodline.services.alerts.rules import Rule, RuleKind, Webhook
from moodline.services.alerts.webhook import EVENT_HEADER, SIGNATURE_HEADER, HttpSender, is_signed, webhook_policy
from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import WebhookError
from moodline.shared.seal import Sealer
from moodline.shared.settings import AlertsSettings
from tests.support.alerts import GLAD, KEY, AlertWorld, glad
from tests.support.api import NOW_S

BODY = b'{"id":"1"}'
OPEN = AlertsSettings(webhook_allow_loopback=True, webhook_timeout_s=2)


@dataclass
class Receiver:
    """Answers with the statuses that it was told, then 200; keeps what came."""

    statuses: list[int] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.got.append((self.path, dict(self.headers), body))
            status = told.statuses.pop(0) if told.statuses else 200
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("location", f"{told.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def sender(settings: AlertsSettings = OPEN, **options: object) -> HttpSender:
    return HttpSender(webhook_policy(settings), settings.webhook_timeout_s, **options)  # type: ignore[arg-type]


def failure(url: str, sending: HttpSender | None = None) -> str:
    with pytest.raises(WebhookError) as error:
        (sending or sender()).send(url, "s", BODY, "1", NOW_S)
    assert "token" not in str(error.value), "an error never tells the URL"
    return error.value.reason


def test_a_delivery_is_signed_over_time_and_body(receiver: Receiver) -> None:
    sender().send(f"{receiver.url}/hook?a=b", "whs_1", BODY, "event-1", NOW_S)
    [(path, headers, body)] = receiver.got
    assert (path, body, headers[EVENT_HEADER]) == ("/hook?a=b", BODY, "event-1")
    assert headers["Content-Type"] == "application/json"
    signature = headers[SIGNATURE_HEADER]
    assert signature.startswith(f"t={int(NOW_S)},v1=")
    assert is_signed("whs_1", body, signature, NOW_S + 10)
    assert not is_signed("whs_2", body, signature, NOW_S), "another secret"
    assert not is_signed("whs_1", body + b" ", signature, NOW_S), "another body"
    assert not is_signed("whs_1", body, signature, NOW_S + 301), "a replay"
    assert not is_signed("whs_1", body, signature.replace(f"t={int(NOW_S)}", f"t={int(NOW_S) + 300}"), NOW_S + 300)
    assert not is_signed("whs_1", body, "t=1,v1=", NOW_S)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    assert failure(f"{receiver.url}/hook") == "status"
    assert [path for path, _, _ in receiver.got] == ["/hook"]


def test_failures_have_reasons(receiver: Receiver) -> None:
    receiver.statuses = [410, 500]
    assert failure(f"{receiver.url}/token") == "gone"
    assert failure(f"{receiver.url}/token") == "status"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure(f"http://127.0.0.1:{unused.getsockname()[1]}/token") == "unreachable"
    assert failure(receiver.url.replace("http://", "https://") + "/token") in ("tls", "unreachable")


def test_loopback_and_link_local_are_not_reached_whatever_the_name_says(receiver: Receiver) -> None:
    closed = sender(AlertsSettings())
    port = receiver.url.rpartition(":")[2]
    for url in (receiver.url, f"http://localhost:{port}/", f"http://2130706433:{port}/", f"http://[::1]:{port}/"):
        assert failure(f"{url}/token", closed) in ("forbidden", "unreachable")
    for address in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"):
        rebound = sender(AlertsSettings(), resolver=lambda _host, _port, address=address: [address])
        assert failure(f"http://example.org:{port}/token", rebound) == "forbidden"
    for address in ("169.254.169.254", "0.0.0.0"):
        linked = sender(OPEN, resolver=lambda _host, _port, address=address: [address])
        assert failure(f"http://example.org:{port}/token", linked) == "forbidden", "also where loopback is allowed"
    assert receiver.got == []


def test_the_address_that_was_judged_is_the_one_that_is_called(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolver(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    port = receiver.url.rpartition(":")[2]
    sender(OPEN, resolver=resolver).send(f"http://hooks.example.org:{port}/", "s", BODY, "1", NOW_S)
    assert asked == ["hooks.example.org"], "the name is resolved once"
    assert receiver.got[0][1]["Host"] == f"hooks.example.org:{port}"


def test_who_answers_one_byte_at_a_time_is_cut_off() -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connected, _ = listening.accept()
            with connected:
                connected.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not stop.wait(0.1):
                    try:
                        connected.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        slow = sender(AlertsSettings(webhook_allow_loopback=True, webhook_timeout_s=1))
        assert failure(f"http://127.0.0.1:{listening.getsockname()[1]}/token", slow) in ("unreachable", "timeout")
        assert time.monotonic() - begun < 10
        stop.set()
        thread.join()


def test_a_certificate_that_nobody_signed_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            connected, _ = listening.accept()
            with connected:
                try:
                    context.wrap_socket(connected, server_side=True)
                except (ssl.SSLError, OSError):
                    return

        thread = threading.Thread(target=refuse)
        thread.start()
        assert failure(f"https://127.0.0.1:{listening.getsockname()[1]}/token") in ("tls", "unreachable")
        thread.join()


def outbox(world: AlertWorld, **changes: object) -> Outbox:
    settings = OPEN.model_copy(update={"webhook_backoff_min_s": 2.0, "webhook_backoff_max_s": 60.0, **changes})
    return Outbox(world.store, Sealer(KEY), sender(settings), settings, world.metrics, world.clock, chance=lambda: 0.0)


def webhook(receiver: Receiver) -> Webhook:
    secret = CameraSecret(password="whs_1", target=f"{receiver.url}/hook")
    return Webhook("http://127.0.0.1/***", Sealer(KEY).seal("alert-rule:glad", secret))


def attempts(world: AlertWorld) -> list[tuple[str, str, int]]:
    found = [decode(value, DeliveryRecord) for _, value in world.store.records(DELIVERY_LOG)]
    return [(record.outcome, record.reason, record.attempt) for record in found]


def test_what_fails_is_tried_again_later_and_later(tmp_path: Path, receiver: Receiver) -> None:
    world = AlertWorld(tmp_path)
    receiver.statuses = [500, 503, 429]
    box = outbox(world)
    box.add("event-1", webhook(receiver), "glad", BODY)
    box.add("event-1", webhook(receiver), "glad", BODY)
    tried = []
    for _ in range(40):
        if box.deliver_due(lambda: True):
            tried.append(world.clock.now - NOW_S)
        world.clock.now += 1
        # The process ends and another one goes on.
        box = outbox(world)
    assert tried == [0, 2, 6, 14]
    assert attempts(world) == [("retry", "status", 1), ("retry", "status", 2), ("retry", "status", 3), ("delivered", "", 4)]
    assert {headers[EVENT_HEADER] for _, headers, _ in receiver.got} == {"event-1"}
    assert len({headers[SIGNATURE_HEADER] for _, headers, _ in receiver.got}) == 4, "each attempt is signed again"
    assert world.metrics.webhooks.labels("delivered")._value.get() == 1
    assert world.metrics.webhooks.labels("retry")._value.get() == 3
    world.store.close()


def test_a_finished_delivery_is_not_begun_again(tmp_path: Path, receiver: Receiver) -> None:
    world = AlertWorld(tmp_path)
    box = outbox(world)
    box.add("event-1", webhook(receiver), "glad", BODY)
    assert box.deliver_due(lambda: True) == 1
    box.add("event-1", webhook(receiver), "glad", BODY)
    assert box.deliver_due(lambda: True) == 0
    assert len(receiver.got) == 1
    world.clock.now += 3601
    box.deliver_due(lambda: True)
    assert world.store.list_entries("alert-deliveries") == [], "nothing grows indefinitely"
    world.store.close()


def test_it_is_given_up_at_last_and_at_once_where_it_is_gone(tmp_path: Path, receiver: Receiver) -> None:
    world = AlertWorld(tmp_path)
    receiver.statuses = [500, 500, 500, 410]
    box = outbox(world, webhook_attempts=3)
    box.add("event-1", webhook(receiver), "glad", BODY)
    for _ in range(20):
        box.deliver_due(lambda: True)
        world.clock.now += 1
    box.add("event-2", webhook(receiver), "glad", BODY)
    for _ in range(20):
        box.deliver_due(lambda: True)
        world.clock.now += 1
    assert [said[:2] for said in attempts(world)] == [
        ("retry", "status"),
        ("retry", "status"),
        ("failed", "status"),
        ("failed", "gone"),
    ]
    world.store.close()


@dataclass
class SlowSender:
    """Holds what goes to `slow` until something else was delivered."""

    other: threading.Event = field(default_factory=threading.Event)
    kept_waiting: list[bool] = field(default_factory=list)

    def send(self, url: str, secret: str, body: bytes, event_id: str, now_s: float) -> None:
        if "slow" in url:
            self.kept_waiting.append(not self.other.wait(60))
        else:
            self.other.set()


@pytest.mark.parametrize("known", [True, False], ids=["by who made the rules", "by the receiver"])
def test_nobodys_slow_receivers_take_all_places(tmp_path: Path, known: bool) -> None:
    world = AlertWorld(tmp_path)
    sending = SlowSender()
    box = Outbox(world.store, Sealer(KEY), sending, OPEN, world.metrics, world.clock, chance=lambda: 0.0)
    for rule_id, url in (("greedy", "http://slow.example/"), ("modest", "http://quick.example/")):
        sealed = Sealer(KEY).seal(f"alert-rule:{rule_id}", CameraSecret(password="whs_1", target=url))
        hook = Webhook(url, sealed)
        rule = Rule(rule_id=rule_id, label="a", kind=RuleKind.OFFLINE, webhook=hook, added_by=rule_id if known else "")
        RuleBook(world.store).add(rule)
        for number in range(100 if rule_id == "greedy" else 1):
            box.add(f"{rule_id}-{number}", hook, rule_id, BODY)
        world.clock.now += 1
    assert box.deliver_due(lambda: True) > 1
    assert not any(sending.kept_waiting), "the other was not sent meanwhile"
    while box.deliver_due(lambda: True):
        pass
    assert len(sending.kept_waiting) == 100, "and none is left out"
    world.store.close()


def test_without_the_lease_nothing_is_sent(tmp_path: Path, receiver: Receiver) -> None:
    world = AlertWorld(tmp_path)
    box = outbox(world)
    box.add("event-1", webhook(receiver), "glad", BODY)
    assert box.deliver_due(lambda: False) == 0
    assert receiver.got == []
    world.store.close()


def test_from_a_second_of_a_timeline_to_the_receiver(tmp_path: Path, receiver: Receiver) -> None:
    world = AlertWorld(tmp_path)
    world.receiver = sender()  # type: ignore[assignment]
    world.rules.add(msgspec.structs.replace(GLAD, webhook=webhook(receiver)))
    process = world.process()
    process.step()
    world.play(glad(10))
    process.step()
    process.deliver()
    [(_, headers, body)] = receiver.got
    assert is_signed("whs_1", body, headers[SIGNATURE_HEADER], world.clock.now)
    assert msgspec.json.decode(body)["id"] == headers[EVENT_HEADER]
    world.store.close()
