"""Publishes what the live feed tells, by one process of all that share a store.

Nothing waits for a broker: while it is away the newest of every retained topic is kept, and published when it is back; what
nobody could hear meanwhile is counted as `dropped`.
"""

import logging
import ssl
import threading
import uuid
from collections import OrderedDict
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec

from moodline.services.alerts.leader_lease import LeaderLease
from moodline.services.live.feed import LiveFeed, SubscribedStreams, Subscriber, SubscriptionFilter
from moodline.services.live.stream import EventKind, FeedEvent
from moodline.services.mqtt.address import BrokerAddress, parse_broker
from moodline.services.mqtt.topics import OFFLINE, ONLINE, Message, Topics
from moodline.shared.clock import Clock
from moodline.shared.errors import SettingsError, StoreError
from moodline.shared.metrics import Metrics
from moodline.shared.settings import MqttSettings, Settings
from moodline.shared.store import Store

log = logging.getLogger("moodline.mqtt")

_LEASE: Final = "mqtt"
_INTERVAL_S: Final = 1.0
_JOIN_S: Final = 10.0
_QUEUE: Final = 2000
_REMEMBERED: Final = 1000
_KEEP_ALIVE_S: Final = 30
_LONGEST_PAUSE_S: Final = 60
_HOME_ASSISTANT_STARTED: Final = b"online"


class Publisher(Protocol):
    """The receiver of messages."""

    @property
    def is_connected(self) -> bool:
        """Return whether the broker is there."""
        ...

    def publish(self, message: Message) -> None:
        """Hand a message over; blocks for nothing."""
        ...


class MqttBridge:
    """A context manager: entering starts a thread, leaving says goodbye. Does nothing where no broker is set."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        """Prepare.

        Raises:
            SettingsError: the address is none, or the package paho-mqtt is missing.
        """
        self._settings = settings.mqtt
        self._metrics = metrics
        self._feed = LiveFeed(store, clock)
        self._lease = LeaderLease(store, clock, uuid.uuid4().hex, _LEASE)
        self._topics = Topics(self._settings.topic_prefix, self._settings.discovery_prefix, version("moodline"))
        self._state = RetainedState(self._topics)
        self._news = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._url = self._settings.url.get_secret_value()
        self._broker = Broker(self._settings, parse_broker(self._url), self._topics, self._news) if self._url else None

    def alive(self) -> dict[str, bool]:
        """Return whether the thread runs, where there is one."""
        return {} if self._thread is None else {"mqtt": self._thread.is_alive()}

    def __enter__(self) -> Self:
        if self._broker is not None:
            self._metrics.mqtt_connected.set(0)
            self._thread = threading.Thread(target=self._run, args=(self._broker,), name="mqtt", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._feed.close()

    def _run(self, broker: "Broker") -> None:
        subscriber: Subscriber | None = None
        try:
            while not self._stop.is_set():
                is_ours = self._is_ours()
                if is_ours and subscriber is None:
                    broker.start()
                    subscriber = self._feed.subscribe(SubscriptionFilter(lambda _: True), self._news.set)
                elif not is_ours and subscriber is not None:
                    self._feed.drop(subscriber)
                    broker.stop()
                    subscriber = None
                self._news.clear()
                if subscriber is not None:
                    self._publish_news(broker, subscriber)
                    if subscriber.closed:
                        subscriber = self._feed.subscribe(SubscriptionFilter(lambda _: True), self._news.set)
                self._news.wait(_INTERVAL_S)
        finally:
            broker.stop()
            self._metrics.mqtt_connected.set(0)
            self._release()

    def _publish_news(self, broker: "Broker", subscriber: Subscriber) -> None:
        """Publish what is new; all that is retained where the broker, or Home Assistant, has just come."""
        for item in subscriber.take() or []:
            for message in self._state.take(item):
                self._publish(broker, message)
        self._metrics.mqtt_connected.set(broker.is_connected)
        if broker.take_news():
            for message in self._state.everything():
                self._publish(broker, message)

    def _publish(self, broker: "Broker", message: Message) -> None:
        if broker.is_connected:
            broker.publish(message)
        self._metrics.mqtt_messages.labels("published" if broker.is_connected else "dropped").inc()

    def _is_ours(self) -> bool:
        try:
            return self._lease.hold()
        except StoreError as error:
            log.warning("mqtt.interrupted", extra={"reason": str(error)})
            return self._lease.is_held

    def _release(self) -> None:
        try:
            self._lease.release()
        except StoreError as error:
            log.warning("mqtt.interrupted", extra={"reason": str(error)})


class RetainedState:
    """The newest message of every retained topic, by stream: what a broker has to hold."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._held: dict[str, dict[str, Message]] = {}
        self._gone: OrderedDict[str, list[Message]] = OrderedDict()
        """What takes the topics of removed streams away, for brokers that were not there when they went."""

    def take(self, item: SubscribedStreams | FeedEvent) -> list[Message]:
        """Return what is to be published for one item of the feed."""
        if isinstance(item, SubscribedStreams):
            return self._resubscribed(set(item.streams))
        messages = self._messages_of(item)
        held = self._held.setdefault(item.stream_id, {})
        held.update({message.topic: message for message in messages if message.is_retained})
        return messages

    def everything(self) -> list[Message]:
        """Return what takes removed streams away, once, and then all that is retained, descriptions first."""
        removed = [message for messages in self._gone.values() for message in messages]
        self._gone.clear()
        return removed + [message for held in self._held.values() for message in held.values()]

    def _resubscribed(self, streams: set[str]) -> list[Message]:
        gone = self._held.keys() - streams
        removed = [message for stream_id in sorted(gone) for message in self._topics.removal(stream_id)]
        for stream_id in gone:
            del self._held[stream_id]
            self._gone[stream_id] = self._topics.removal(stream_id)
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
        described = []
        for stream_id in sorted(streams - self._held.keys()):
            found = self._topics.discovery(stream_id)
            self._held[stream_id] = {message.topic: message for message in found}
            described += found
        return removed + described

    def _messages_of(self, event: FeedEvent) -> list[Message]:
        data: dict[str, Any] = msgspec.json.decode(event.data)
        if event.kind is EventKind.STATE:
            return self._topics.of_state(event.stream_id, data)
        if event.kind is EventKind.POINT and data["point"]["final"]:
            return self._topics.of_point(event.stream_id, data["point"])
        if event.kind is EventKind.ALERT:
            return self._topics.of_alert(event.stream_id, data)
        return []


class Broker:
    """The connection, by paho-mqtt: it connects again by itself, with growing pauses."""

    def __init__(self, settings: MqttSettings, address: BrokerAddress, topics: Topics, news: threading.Event) -> None:
        try:
            from paho.mqtt import client as mqtt
        except ModuleNotFoundError:
            raise SettingsError("MOODLINE_MQTT_URL needs the package paho-mqtt: pip install 'moodline[mqtt]'") from None
        self._mqtt = mqtt
        self._settings = settings
        self._address = address
        self._topics = topics
        self._news = news
        self._client: Any = None
        self._has_news = False

    @property
    def is_connected(self) -> bool:
        return bool(self._client is not None and self._client.is_connected())

    def take_news(self) -> bool:
        """Return, once, that everything is to be published again."""
        has_news, self._has_news = self._has_news, False
        return has_news

    def start(self) -> None:
        """Begin to connect; returns at once."""
        client = self._mqtt.Client(self._mqtt.CallbackAPIVersion.VERSION2, self._settings.client_id or None)
        if self._address.username is not None:
            client.username_pw_set(self._address.username, self._address.password)
        if self._address.uses_tls:
            ca_file = self._settings.tls_ca_file
            client.tls_set_context(ssl.create_default_context(cafile=None if ca_file is None else str(ca_file)))
        client.will_set(self._topics.available, OFFLINE, qos=1, retain=True)
        client.max_queued_messages_set(_QUEUE)
        client.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        client.on_connect, client.on_disconnect, client.on_message = self._connected, self._disconnected, self._heard
        client.on_connect_fail = lambda *_: log.warning("mqtt.unreachable", extra={"target": self._address.shown()})
        client.connect_async(self._address.host, self._address.port, _KEEP_ALIVE_S)
        client.loop_start()
        self._client = client

    def publish(self, message: Message) -> None:
        self._client.publish(message.topic, message.payload, qos=1 if message.is_retained else 0, retain=message.is_retained)

    def stop(self) -> None:
        """Say that Moodline is away, and leave. Safe to call twice."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected():
            client.publish(self._topics.available, OFFLINE, qos=1, retain=True).wait_for_publish(2.0)
        client.disconnect()
        client.loop_stop()

    def _connected(self, client: Any, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            log.warning("mqtt.refused", extra={"target": self._address.shown(), "reason": str(reason)})
            return
        log.info("mqtt.connected", extra={"target": self._address.shown()})
        client.publish(self._topics.available, ONLINE, qos=1, retain=True)
        if self._topics.home_assistant is not None:
            client.subscribe(self._topics.home_assistant)
        self._again()

    def _disconnected(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        log.warning("mqtt.disconnected", extra={"target": self._address.shown(), "reason": str(reason)})

    def _heard(self, _client: object, _data: object, message: Any) -> None:
        if message.payload == _HOME_ASSISTANT_STARTED:
            self._again()

    def _again(self) -> None:
        self._has_news = True
        self._news.set()
