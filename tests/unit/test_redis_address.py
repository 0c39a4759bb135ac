"""Store URLs of Redis: what they mean, what is refused, and that no secret is ever shown."""

import traceback

import pytest
from redis.sentinel import SentinelManagedSSLConnection

from moodline.shared.errors import SettingsError
from moodline.shared.store import Retention, open_store
from moodline.shared.store.redis_address import SCHEMES, parse_redis_url

CANARY = "s3cret-canary"
OTHER = "0ther-canary"


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "service", "tls"),
    [
        ("redis://", "", (("localhost", 6379),), "", False),
        ("redis://one:7000/3", "", (("one", 7000),), "", False),
        ("rediss://[::1]:7000", "", (("::1", 7000),), "", True),
        ("redis+sentinel://one,two:27000/mood", "sentinel", (("one", 26379), ("two", 27000)), "mood", False),
        ("rediss+sentinel://user:word@one/mood/2", "sentinel", (("one", 26379),), "mood", True),
        ("redis+cluster://one,[::1]:7001,three:7002", "cluster", (("one", 6379), ("::1", 7001), ("three", 7002)), "", False),
        ("rediss+cluster://:word@one:7000/0", "cluster", (("one", 7000),), "", True),
    ],
)
def test_what_a_url_means(url: str, kind: str, nodes: tuple[tuple[str, int], ...], service: str, tls: bool) -> None:
    address = parse_redis_url(url)
    assert (address.kind, address.nodes, address.service, address.tls) == (kind, nodes, service, tls)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one:1",  # no service
        "redis+sentinel://one:1/",
        "redis+sentinel://one:1/mood/x",
        "redis+sentinel://one:1/mo od",
        "redis+sentinel://one:1,,two:2/mood",
        "redis+sentinel://one:1/mood?sentinel_port=4",
        "redis+sentinel://one:1/mood?sentinel_password",
        "redis+cluster://one:1/1",  # a cluster has one database
        "redis+cluster://one:1?sentinel_password=x",
        "redis+cluster://one:99999",
        "redis+clusters://one:1",
        "redis://one,two:1/0",  # one server is one host
        "redis://one:1/0?sentinel_password=x",
        "redis://one:1/0?unknown_option=1",
        "redis://one:1/0#part",
    ],
)
def test_what_cannot_be_used_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(SettingsError, match=r"the store URL cannot be used; write redis"):
        parse_redis_url(url)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "rest",
    [
        f"user:{CANARY}@host:port/0",
        f"user:12/{CANARY}@host/mood",  # not encoded as it must be
        f"user:{CANARY}@[::1/0",
        f"user:{CANARY}@host:1/mood/0?unknown=1",
        f"host:1/mood?password={CANARY}&unknown=1",
        f"host:1/mood?sentinel_password={CANARY}&sentinel_x=1",
    ],
)
def test_a_url_that_cannot_be_used_is_not_quoted(scheme: str, rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_redis_url(f"{scheme}://{rest}")
    assert CANARY not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{CANARY}@host:1/0",
        f"rediss+sentinel://user:{CANARY}@one,two/mood/0?sentinel_username=u&sentinel_password={OTHER}",
        f"redis+cluster://user:{CANARY}@one,two?password={OTHER}",
    ],
)
def test_an_address_shows_no_secret(url: str) -> None:
    address = parse_redis_url(url)
    store = open_store(url, Retention({1: 60}))
    shown = f"{address} {address!r} {address.place} {store} {store!r}"
    assert CANARY not in shown
    assert OTHER not in shown
    assert url.partition("://")[0] + "://" in str(address)
    store.close()


def test_users_passwords_and_tls_of_both_reach_the_client() -> None:
    url = f"rediss+sentinel://me:{CANARY}@one:1,two:2/mood/3?sentinel_username=they&sentinel_password={OTHER}&ssl_ca_certs=ca"
    client, close = parse_redis_url(url).open()
    pool = client.connection_pool  # type: ignore[union-attr]
    assert pool.connection_class is SentinelManagedSSLConnection
    wanted = {"username": "me", "password": CANARY, "db": 3, "ssl_ca_certs": "ca"}
    assert {name: pool.connection_kwargs[name] for name in wanted} == wanted
    for sentinel in pool.sentinel_manager.sentinels:
        asked = sentinel.connection_pool.connection_kwargs
        assert (asked["username"], asked["password"], asked["ssl_ca_certs"]) == ("they", OTHER, "ca")
        assert asked["db"] == 0
    close()
