"""Kafka and Redis over TLS with users: the lines of docs/operations.md, run as they are written, give what is needed, no more."""

import re
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from moodline.shared.bus import ConsumerSettings, open_bus
from moodline.shared.errors import BusError, StoreUnavailableError
from moodline.shared.messages import ALL_TOPICS, DLQ_TOPIC, STREAMS_TOPIC, PipelineStep, StreamClass, topic
from moodline.shared.store import Retention, open_store
from tests.conftest import REPO
from tests.integration.test_operations_access import use_everything
from tests.support.certificates import Certificates, make_certificates
from tests.support.cluster import RETENTION, Cluster
from tests.support.fixtures import unavailable
from tests.support.kafka_group import run_tool
from tests.support.redis_groups import DOWN_AFTER_MS, SERVICE, ClusterGroup, RedisNode, SentinelGroup
from tests.support.reference import reference_dump, synthetic_spec
from tests.support.secure_kafka import ADMIN, SecureKafka
from tests.support.servers import HOST, kafka_libs, wait_until

pytestmark = [pytest.mark.redis, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = (REPO / "docs/operations.md").read_text()
WORD = "w0rd-canary+/="
KINDS = ("ingest", "detector", "classifier", "aggregator", "api", "setup")
TOOLS = {"kafka-acls.sh": "org.apache.kafka.tools.AclCommand", "kafka-configs.sh": "kafka.admin.ConfigCommand"}
FILE, LIVE = StreamClass.FILE, StreamClass.LIVE
STEPS = {step: {topic(step, lane) for lane in StreamClass} for step in PipelineStep}
MAY_READ = {
    "ingest": {STREAMS_TOPIC},
    "detector": STEPS[PipelineStep.FRAMES],
    "classifier": STEPS[PipelineStep.FACES],
    "aggregator": STEPS[PipelineStep.EMOTIONS],
    "api": set(),
    "setup": set(),
}
MAY_WRITE = {
    "ingest": STEPS[PipelineStep.FRAMES],
    "detector": STEPS[PipelineStep.FACES] | {DLQ_TOPIC},
    "classifier": STEPS[PipelineStep.EMOTIONS] | {DLQ_TOPIC},
    "aggregator": {DLQ_TOPIC},
    "api": STEPS[PipelineStep.FRAMES],
    "setup": set(),
}


def command_lines(tool: str) -> list[list[str]]:
    """Return the lines of the page that call one of Kafka's tools for this cluster's security, without the tool's name."""
    found = re.findall(rf"^{re.escape(tool)} (.*--command-config admin\.properties .*)$", PAGE, re.MULTILINE)
    assert found, f"docs/operations.md has no line for {tool}"
    return [shlex.split(line) for line in found]


def acl_of(part: str) -> list[str]:
    """Return the one ACL line of the page that has this part, without `ACL SETUSER`."""
    (line,) = [line for line in re.findall(r"^ACL SETUSER (moodline .*)$", PAGE, re.MULTILINE) if part in line]
    return line.replace(">WORD", f">{WORD}").split()


@dataclass(frozen=True)
class Secured:
    kafka: SecureKafka
    certificates: Certificates

    def admin_of(self, kind: str) -> Any:
        return AdminClient({"bootstrap.servers": self.kafka.servers, "log_level": 0, **self.properties(kind)})

    def properties(self, kind: str) -> dict[str, str]:
        return self.kafka.properties_of(f"moodline-{kind}", WORD)

    def url(self, kind: str) -> str:
        return self.kafka.url_of(f"moodline-{kind}", WORD)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("redis-server") is None:
        unavailable("no redis-server: run deploy/local/system-packages.sh")
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with the users and permissions that the page's lines make, and the topics, made by `moodline-setup`."""
    if kafka_libs() is None:
        unavailable("no Kafka jars: run deploy/local/kafka-setup.sh")
    folder = tmp_path_factory.mktemp("admin")
    with SecureKafka(certificates) as kafka:
        kafka.add_users({ADMIN: WORD, **{f"moodline-{kind}": WORD for kind in KINDS if kind != "ingest"}})
        config = kafka.tool_config(folder / "admin.properties", ADMIN, WORD)

        def run(call: tuple[str, list[str]]) -> str:
            given = {"kafka-1:9093": kafka.servers, "admin.properties": str(config)}
            words = [given.get(word, word).replace("=WORD]", f"={WORD}]") for word in call[1]]
            return run_tool(TOOLS[call[0]], *words)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, [(tool, line) for tool in TOOLS for line in command_lines(tool)]))
        secured = Secured(kafka, certificates)
        bus = open_bus(secured.url("setup"), partitions=2)
        bus.ensure_topics(ALL_TOPICS)
        bus.close()
        yield secured


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> dict[str, object]:
    """Options of a Redis or Sentinel that speaks TLS."""
    return {
        "tls-cert-file": certificates.server,
        "tls-key-file": certificates.key,
        "tls-ca-cert-file": certificates.ca,
        "tls-auth-clients": "no",
    }


@pytest.fixture(scope="module")
def login(certificates: Certificates) -> dict[str, object]:
    return {"ssl": True, "ssl_ca_certs": str(certificates.ca)}


@pytest.fixture(scope="module")
def secure_redis(tls: dict[str, object], login: dict[str, object]) -> Iterator[RedisNode]:
    node = RedisNode({"port": 0, **tls}, login)
    node.options["tls-port"] = node.port
    with node:
        node.set_state("ACL", "SETUSER", *acl_of("~moodline:*"))
        yield node


@pytest.fixture(scope="module")
def store_url(secure_redis: RedisNode, certificates: Certificates) -> str:
    (line,) = re.findall(r"^MOODLINE_STORE_URL=(rediss://\S+)$", PAGE, re.MULTILINE)
    return written(line, certificates).replace("redis:6380", f"{HOST}:{secure_redis.port}")


def written(line: str, certificates: Certificates) -> str:
    """Return a URL of the page with this test's word and file."""
    return line.replace("WORD", "w0rd-canary%2B%2F%3D").replace("/etc/moodline/tls/redis-ca.crt", str(certificates.ca))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_may_do_what_it_needs_and_nothing_else(secured: Secured, kind: str) -> None:
    admin = secured.admin_of(kind)
    described = admin.describe_topics(TopicCollection(list(ALL_TOPICS)), include_authorized_operations=True)
    operations = {name: set(future.result().authorized_operations) for name, future in described.items()}
    assert {name for name in ALL_TOPICS if AclOperation.READ in operations[name]} == MAY_READ[kind]
    assert {name for name in ALL_TOPICS if AclOperation.WRITE in operations[name]} == MAY_WRITE[kind]
    assert not any({AclOperation.DELETE, AclOperation.ALTER} & found for found in operations.values())
    changes = {AclOperation.CREATE, AclOperation.ALTER_CONFIGS}
    assert {name for name in ALL_TOPICS if changes & operations[name]} == (set(ALL_TOPICS) if kind == "setup" else set())


def test_what_is_not_allowed_is_refused_in_words_without_the_password(secured: Secured) -> None:
    producer = Producer({"bootstrap.servers": secured.kafka.servers, "log_level": 0, **secured.properties("detector")})
    answers: list[KafkaError | None] = []
    producer.produce(topic(PipelineStep.EMOTIONS, FILE), b"x", on_delivery=lambda error, _: answers.append(error))
    producer.flush(30)
    (answer,) = answers
    assert answer is not None
    assert answer.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    bus = open_bus(secured.url("ingest"), partitions=2)
    consumer = bus.open_consumer(ConsumerSettings(group="moodline.ingest", topics=(topic(PipelineStep.EMOTIONS, FILE),)))
    with pytest.raises(BusError) as caught:
        wait_until(lambda: bool(consumer.poll(10, 0.5)), 30, "a refusal")
    assert WORD not in str(caught.value)
    consumer.close()
    bus.close()


def test_a_wrong_password_or_no_tls_is_let_nowhere(secured: Secured) -> None:
    for properties in (
        secured.kafka.properties_of("moodline-ingest", "another"),
        {"security.protocol": "PLAINTEXT"},
        {**secured.properties("ingest"), "security.protocol": "SASL_PLAINTEXT"},
    ):
        admin = AdminClient({"bootstrap.servers": secured.kafka.servers, "log_level": 0, **properties})
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=3)


def test_a_file_goes_through_with_a_user_for_each_kind(tmp_path: Path, secured: Secured, store_url: str) -> None:
    spec = synthetic_spec("secured", 2, seed=1)
    reference = reference_dump(tmp_path, spec)
    users = {kind: {"MOODLINE_BUS_URL": secured.url(kind)} for kind in KINDS}
    with Cluster(secured.url("setup"), store_url, tmp_path, tmp_path, partitions=2, env_of=users) as cluster:
        cluster.store.add(spec)
        cluster.start(1)
        cluster.wait_until_up()
        cluster.wait_until_final([spec], 120)
        assert cluster.dump(spec) == reference
        for worker in cluster.workers:
            assert WORD not in cluster.log_of(worker)
            assert "REFUSED" not in cluster.log_of(worker).upper()
        assert cluster.crashes == []


def test_redis_with_tls_and_its_user_does_all_that_moodline_does_and_nothing_else(store_url: str) -> None:
    store = open_store(store_url.replace("/0?", "/1?"), RETENTION)
    use_everything(store)
    store.close()
    with redis.Redis.from_url(store_url) as user:
        for command in (
            ("GET", "other"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("KEYS", "*"),
            ("CLIENT", "LIST"),
            ("ACL", "LIST"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)


def test_a_redis_whose_certificate_nobody_vouches_for_is_not_talked_to(store_url: str) -> None:
    store = open_store(store_url.partition("?")[0], Retention({1: 60}))
    with pytest.raises(StoreUnavailableError, match="certificate") as caught:
        store.ping()
    assert WORD not in str(caught.value)
    store.close()


def test_sentinel_with_tls_and_users_of_both(
    certificates: Certificates, tls: dict[str, object], login: dict[str, object]
) -> None:
    lines = [f"{name} {value}" for name, value in tls.items()] + ["tls-replication yes"]
    with SentinelGroup(1, tls, login, lines, login) as group:
        for node in group.nodes:
            node.set_state("ACL", "SETUSER", *acl_of("~moodline:*"))
        for sentinel in group.sentinels:
            sentinel.set_state("ACL", "SETUSER", *acl_of("+sentinel|masters"))
        (line,) = re.findall(r"^MOODLINE_STORE_URL=(redis\+sentinel://\S+)$", PAGE, re.MULTILINE)
        url = written(line, certificates).replace("redis+", "rediss+").replace("/mymaster/", f"/{SERVICE}/")
        url = re.sub(r"sentinel-1:\d+,sentinel-2:\d+,sentinel-3:\d+", group.hosts, url) + f"&ssl_ca_certs={certificates.ca}"
        store = open_store(url, RETENTION)
        use_everything(store)
        group.master().kill()
        wait_until(lambda: pinged(store), 20 + DOWN_AFTER_MS / 1000, "the replica to be the master")
        store.close()
        for wrong, said in (
            ("sentinel_password=", "sentinel_username or sentinel_password"),
            ("moodline:", "this user or password"),
        ):
            refused = open_store(url.replace(wrong, f"{wrong}X"), RETENTION)
            with pytest.raises(StoreUnavailableError, match=f"refuses {said}") as caught:
                refused.ping()
            assert WORD not in str(caught.value)
            refused.close()


def pinged(store: Any) -> bool:
    try:
        store.ping()
    except StoreUnavailableError:
        return False
    return True


def test_a_cluster_with_the_user_of_the_page(certificates: Certificates) -> None:
    (more,) = re.findall(r"On a cluster add `([^`]+)`", PAGE)
    with ClusterGroup() as group:
        for node in group.nodes:
            node.set_state("ACL", "SETUSER", *acl_of("~moodline:*"), *more.split())
        (line,) = re.findall(r"^MOODLINE_STORE_URL=(redis\+cluster://\S+)$", PAGE, re.MULTILINE)
        hosts = group.url.removeprefix("redis+cluster://")
        url = re.sub(r"redis-1:\d+,redis-2:\d+,redis-3:\d+", hosts, written(line, certificates))
        store = open_store(url, RETENTION)
        use_everything(store)
        store.close()
        refused = open_store(url.replace("moodline:", "moodline:X"), RETENTION)
        with pytest.raises(StoreUnavailableError, match="refuses this user or password") as caught:
            refused.ping()
        assert WORD not in str(caught.value)
        refused.close()
        group.nodes[0].kill()
        late = open_store(url, RETENTION)  # the first of its nodes is dead
        wait_until(lambda: pinged(late), 30, "the others to answer")
        late.close()
