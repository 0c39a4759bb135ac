"""`moodline setup`: the topics, before anything else is started."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from moodline.services.runtime.bootstrap import require_shared_bus
from moodline.shared.bus import open_bus
from moodline.shared.errors import BusError
from moodline.shared.messages import ALL_TOPICS
from moodline.shared.settings import load_settings

if TYPE_CHECKING:
    from moodline.shared.bus.topic_setup import TopicReport


def setup(
    *,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 unless all is as declared.")] = False,
) -> None:
    """Create Kafka's topics with their partitions, retention and size limits, and correct those that differ; deletes nothing."""
    settings = load_settings()
    require_shared_bus(settings)
    partitions = settings.bus.partitions
    with closing(open_bus(settings.bus_url(), partitions=partitions)) as bus:
        # Needs Kafka's client, which is there now that the bus is open.
        from moodline.shared.bus.kafka import KafkaBus
        from moodline.shared.bus.topic_setup import inspect_topics, set_up_topics

        assert isinstance(bus, KafkaBus), "the only bus that processes share"
        if check:
            report = inspect_topics(bus, ALL_TOPICS, partitions)
            _show(report, partitions, created="is missing; declared", changed="is {found}, declared {declared}")
            if not report.complete:
                raise BusError("topics are not as declared; `moodline setup` creates and corrects them")
        else:
            report = set_up_topics(bus, ALL_TOPICS, partitions)
            _show(report, partitions, created="created", changed="was {found}, is now {declared}")


def _show(report: "TopicReport", partitions: int, *, created: str, changed: str) -> None:
    for name in report.missing:
        typer.echo(f"{name}: {created}: {_declared(name, partitions)}")
    for item in report.different:
        typer.echo(f"{item.topic}: {item.what} {changed.format(found=item.found, declared=item.declared)}")
    for name in report.as_declared:
        typer.echo(f"{name}: as declared: {_declared(name, partitions)}")


def _declared(name: str, partitions: int) -> str:
    from moodline.shared.bus.kafka_topics import declared_config

    shown = declared_config(name)
    limits = ", ".join(f"{key}={shown[key]}" for key in ("retention.ms", "retention.bytes", "max.message.bytes"))
    return f"{partitions} partitions, {limits}"
