"""What static membership of Kafka's groups (`group.instance.id`) would change: the longest silence of any partition.

Run from the checkout: `python -m bench.membership`. A real Kafka is started in a temporary folder (jars from `make kafka`), and
two consumers, each a process, read four partitions while records are sent all the time. Then one of them is killed, or stopped
cleanly, or stopped and started again, or the broker is killed and comes back after a while. Printed is the longest time, in s, in
which some partition gave no record, with and without static membership. For the broker its own outage is taken off.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.errors import BusError
from tests.support.servers import KafkaServer, die_with_parent

TOPIC: Final = "moodline.membership"
PARTITIONS: Final = 4


def consume(url: str) -> None:
    """Read until SIGTERM; print a line of JSON, partition and time of sending, for each record."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with (
        closing(open_bus(url, partitions=PARTITIONS)) as bus,
        closing(bus.open_consumer(ConsumerSettings("bench", (TOPIC,)))) as consumer,
    ):
        while not stop.is_set():
            for record in consumer.poll(100, 0.1):
                print(json.dumps([record.position.partition, time.time()]), flush=True)
                consumer.commit([record.position])


class Members:
    """The processes that read, and when each partition was read."""

    def __init__(self, url: str, *, static: bool) -> None:
        self._url, self._static = url, static
        self.read_s: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, number: int) -> None:
        """Start a reading process."""
        url = f"{self._url}?group.instance.id=member-{number}" if self._static else self._url
        command = [*die_with_parent(), sys.executable, "-m", "bench.membership", "--consume", url]
        process = self.processes[number] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def end(self, number: int, how: signal.Signals) -> None:
        """End a process and wait for it."""
        self.processes[number].send_signal(how)
        self.processes[number].wait(20)

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            partition, read_s = json.loads(line)
            self.read_s[partition].append(read_s)

    def silence_s(self, since_s: float) -> float:
        """Return the longest time in which a partition gave nothing."""
        times = [[since_s, *(read_s for read_s in sorted(items) if read_s > since_s), time.time()] for items in self.read_s]
        return max(after - before for items in times for before, after in pairwise(items))


def send(url: str, stop: threading.Event) -> None:
    """Send ten records a second to each partition, until told to stop; an outage stops nothing."""
    with closing(open_bus(url, partitions=PARTITIONS)) as bus, closing(bus.open_producer()) as producer:
        while not stop.wait(0.1):
            for number in range(4 * PARTITIONS):
                with suppress(BusError):
                    producer.send(TOPIC, f"key-{number}".encode(), b"x")


def killed(members: Members, _kafka: KafkaServer) -> float:
    members.end(0, signal.SIGKILL)
    return 0


def stopped(members: Members, _kafka: KafkaServer) -> float:
    members.end(0, signal.SIGTERM)
    return 0


def restarted(members: Members, _kafka: KafkaServer) -> float:
    members.end(0, signal.SIGTERM)
    members.start(0)
    return 0


def broker_away(_members: Members, kafka: KafkaServer, seconds: float = 20.0) -> float:
    began_s = time.time()
    kafka.kill()
    time.sleep(seconds)
    kafka.start()
    return time.time() - began_s


def measure(case: Callable[[Members, KafkaServer], float], *, static: bool) -> float:
    """Return the longest silence, in s, less what the broker was away."""
    with TemporaryDirectory() as folder, KafkaServer(folder=Path(folder)) as kafka:
        with closing(open_bus(kafka.url, partitions=PARTITIONS)) as bus:
            bus.ensure_topics([TOPIC])
        stop, members = threading.Event(), Members(kafka.url, static=static)
        for number in range(2):
            members.start(number)
        threading.Thread(target=send, args=(kafka.url, stop), daemon=True).start()
        while not all(members.read_s):
            time.sleep(0.1)
        time.sleep(5)
        since_s = time.time()
        away_s = case(members, kafka)
        time.sleep(25)
        stop.set()
        silence_s = members.silence_s(since_s) - away_s
        for process in members.processes.values():
            process.kill()
        return silence_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--consume", metavar="URL", help=argparse.SUPPRESS)
    if (url := parser.parse_args().consume) is not None:
        return consume(url)
    print("| what happens | dynamic | static |\n| --- | ---: | ---: |")
    for case in (killed, stopped, restarted, broker_away):
        figures = [measure(case, static=static) for static in (False, True)]
        print(f"| {case.__name__.replace('_', ' ')} | {figures[0]:.1f} | {figures[1]:.1f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
