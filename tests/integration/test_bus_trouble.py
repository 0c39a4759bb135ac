"""Kafka unavailable shows in the metrics, though its client goes on trying by itself and nothing is raised."""

from contextlib import closing

import pytest

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.messages import ALL_TOPICS, PipelineStep, StreamClass, topic
from moodline.shared.metrics import Metrics
from tests.support.servers import KafkaServer, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_a_broker_that_is_gone_is_counted_and_one_that_answers_is_not(private_kafka: KafkaServer) -> None:
    metrics = Metrics()

    def errors() -> float:
        return metrics.registry.get_sample_value("moodline_bus_errors_total") or 0.0

    with closing(open_bus(private_kafka.url, partitions=1, on_trouble=metrics.bus_errors.inc)) as bus:
        bus.ensure_topics(ALL_TOPICS)
        settings = ConsumerSettings(group="workers", topics=(topic(PipelineStep.FRAMES, StreamClass.LIVE),))
        with closing(bus.open_consumer(settings)) as consumer:
            wait_until(lambda: bool(consumer.poll(1, 0.2) or consumer.assignment()), 30, "the assignment")
            assert errors() == 0
            private_kafka.kill()
            # The connection was lost, and there is none to be had. More would take longer: the client holds back repeats.
            wait_until(lambda: consumer.poll(1, 0.2) == [] and errors() >= 2, 30, "errors to be counted")
