"""Topics that a cluster shows late: a broker may answer with the old settings for some time after it accepted new ones."""

from collections.abc import Iterable, Mapping

import pytest

from moodline.shared.bus.kafka_topics import FoundTopic, declared_config
from moodline.shared.bus.topic_setup import set_up_topics
from moodline.shared.errors import BusError
from moodline.shared.messages import DLQ_TOPIC, STREAMS_TOPIC
from tests.support.clocks import SleepingClock

NAMES = (STREAMS_TOPIC, DLQ_TOPIC)


class LateCluster:
    """Accepts at once, and answers with what it accepted only `late_s` after it did."""

    def __init__(self, clock: SleepingClock, late_s: float) -> None:
        self._clock = clock
        self._late_s = late_s
        self._shown = {DLQ_TOPIC: FoundTopic(3, declared_config(DLQ_TOPIC) | {"retention.ms": "1000"})}
        self._accepted = dict(self._shown)
        self._changed_s = 0.0
        self.looks = 0

    def ensure_topics(self, names: Iterable[str]) -> None:
        self._accept({name: FoundTopic(3, declared_config(name)) for name in names})

    def change_topic(self, name: str, config: Mapping[str, str]) -> None:
        before = self._accepted[name]
        self._accept({name: FoundTopic(before.partitions, {**before.config, **config})})

    def find_topics(self, names: Iterable[str]) -> dict[str, FoundTopic]:
        self.looks += 1
        if self._clock.now_s() >= self._changed_s + self._late_s:
            self._shown = dict(self._accepted)
        return dict(self._shown)

    def _accept(self, topics: Mapping[str, FoundTopic]) -> None:
        self._accepted |= topics
        self._changed_s = self._clock.now_s()


@pytest.mark.parametrize("late_s", [0.0, 0.1, 3.0, 9.9])
def test_it_looks_again_until_the_cluster_answers_with_what_it_accepted(late_s: float) -> None:
    clock = SleepingClock()
    cluster = LateCluster(clock, late_s)
    began_s = clock.now_s()
    report = set_up_topics(cluster, NAMES, 3, clock)
    assert report.missing == (STREAMS_TOPIC,)
    assert [(item.topic, item.what, item.found) for item in report.different] == [(DLQ_TOPIC, "retention.ms", "1000")]
    assert late_s <= clock.now_s() - began_s < late_s + 0.5, "no longer than needed"
    assert set_up_topics(cluster, NAMES, 3, clock).complete


def test_a_cluster_that_never_takes_it_is_an_error_after_some_seconds() -> None:
    clock = SleepingClock()
    cluster = LateCluster(clock, late_s=1e9)
    began_s = clock.now_s()
    with pytest.raises(BusError, match=f"{STREAMS_TOPIC}, {DLQ_TOPIC} retention.ms=1000"):
        set_up_topics(cluster, NAMES, 3, clock)
    assert 5 < clock.now_s() - began_s < 20
    assert cluster.looks > 5
