"""The Kafka URL, and what is made of it for librdkafka. Connects to nothing."""

import logging

import pytest

from moodline.shared.bus.kafka import KafkaBus
from moodline.shared.bus.kafka_settings import ClientLog, consumer_config, parse_url, producer_config, topic_config
from moodline.shared.bus.retention import RETENTION, retention_of
from moodline.shared.errors import SettingsError
from moodline.shared.messages import ALL_TOPICS, DLQ_TOPIC, PipelineStep, StreamClass, topic

SECRET = "hunter2%26more"


def test_hosts_ports_and_properties() -> None:
    address = parse_url("kafka://one:9093,two?security.protocol=SASL_SSL&sasl.password=a%26b")
    assert address.servers == "one:9093,two:9092"
    assert address.properties == {"security.protocol": "SASL_SSL", "sasl.password": "a&b"}


@pytest.mark.parametrize(
    "url",
    ["kafka://", "kafka://a,,b", "kafka://a:9092/topic", "kafka://a:9092#x", "kafka://a:9092?property", "kafka://a?acks=0"],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingsError):
        parse_url(url)


def test_credentials_before_the_host_are_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match=r"sasl\.password") as caught:
        parse_url(f"kafka://user:{SECRET}@host:9092")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["enable.auto.commit", "group.id", "partitioner", "acks", "enable.idempotence"])
def test_what_the_guarantees_rest_on_cannot_be_changed(name: str) -> None:
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")):
        parse_url(f"kafka://a?{name}=x")


@pytest.mark.parametrize("query", [f"no.such.property={SECRET}", f"security.protocol={SECRET}"])
def test_properties_that_the_client_refuses_are_named_and_their_values_are_not(query: str) -> None:
    with pytest.raises(SettingsError, match=query.partition("=")[0]) as caught:
        KafkaBus(f"kafka://127.0.0.1:1?{query}", partitions=1)
    assert "hunter2" not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert caught.value.__suppress_context__


def test_no_secret_in_the_bus_s_name() -> None:
    login = f"security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.username=me&sasl.password={SECRET}"
    bus = KafkaBus(f"kafka://127.0.0.1:1?{login}", partitions=1)
    assert repr(bus) == "KafkaBus(kafka://127.0.0.1:1)"
    assert "hunter2" not in repr(parse_url(f"kafka://a?sasl.password={SECRET}"))
    bus.close()


def test_properties_of_the_url_come_last() -> None:
    address = parse_url("kafka://a?session.timeout.ms=6000&linger.ms=50")
    assert consumer_config(address, "g", 1 << 24)["session.timeout.ms"] == "6000"
    assert producer_config(address)["linger.ms"] == "50"


@pytest.mark.parametrize("cap", [64 * 1024, 1 << 20, 16 << 20, 256 << 20])
def test_queue_and_one_answer_together_stay_under_the_prefetch_cap(cap: int) -> None:
    config = consumer_config(parse_url("kafka://a"), "g", cap)
    assert config["queued.max.messages.kbytes"] * 1024 + config["fetch.max.bytes"] <= max(cap, 65 * 1024)
    assert config["fetch.message.max.bytes"] <= config["fetch.max.bytes"]
    assert config["message.max.bytes"] <= config["fetch.max.bytes"]


def test_the_largest_record_fits_into_a_batch_and_a_batch_into_a_topic() -> None:
    produced = producer_config(parse_url("kafka://a"))["message.max.bytes"]
    assert 4 * 1024 * 1024 < produced < int(topic_config(retention_of("x"))["max.message.bytes"])


def test_every_topic_has_a_retention() -> None:
    assert set(RETENTION) == set(ALL_TOPICS)
    assert retention_of(topic(PipelineStep.FRAMES, StreamClass.LIVE)).keep_s == 600
    assert retention_of(topic(PipelineStep.FRAMES, StreamClass.FILE)).partition_bytes is not None
    assert [name for name in ALL_TOPICS if retention_of(name).drops_oldest] == [DLQ_TOPIC]


def test_segments_are_short_against_what_is_kept() -> None:
    for name in ALL_TOPICS:
        config = topic_config(retention_of(name))
        assert int(config["segment.ms"]) <= int(config["retention.ms"]) / 5
        assert int(config["retention.bytes"]) == -1 or int(config["segment.bytes"]) <= int(config["retention.bytes"]) / 5


def test_repeated_complaints_of_the_client_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    client_log = ClientLog()
    with caplog.at_level(logging.DEBUG):
        for _ in range(100):
            client_log.log(logging.ERROR, "%s %s %s", "FAIL", "client", "connection refused")
        client_log.log(logging.WARNING, "%s %s %s", "CONFWARN", "client", "a consumer's property")
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG]


def test_a_group_may_have_a_faster_heartbeat() -> None:
    address = parse_url("kafka://a")
    assert [consumer_config(address, "g", 1 << 24, *more)["heartbeat.interval.ms"] for more in ((), (500,))] == [2000, 500]
