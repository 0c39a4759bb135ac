"""The address of Redis: the store's URL, and the redis-py client for it. One server, a master that Sentinel names, or a cluster.

| URL | Redis |
| --- | --- |
| `redis://[user:password@]host:port/db` | one server; or a node of a cluster, which is noticed |
| `redis+sentinel://[user:password@]host:port,host:port/service/db` | the master of a service; the hosts are the Sentinels |
| `redis+cluster://[user:password@]host:port,host:port` | a cluster; the hosts are some of its nodes |

`rediss` in place of `redis` is TLS, to the Sentinels too. User and password are those of Redis; those of the Sentinels are
the options `sentinel_username` and `sentinel_password`. All other options are redis-py's.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from moodline.shared.errors import SettingsError

Client = redis.Redis | RedisCluster
Opened = tuple[Client, Callable[[], None]]
"""A client, and what closes it with all that it uses."""

SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
FORMS: Final = {
    "": "redis://[user:password@]host:port/db",
    "sentinel": "redis+sentinel://[user:password@]host:port,host:port/service/db",
    "cluster": "redis+cluster://[user:password@]host:port,host:port",
}
REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
"""Retrying does not help, but an operator does, and the caller loses nothing by waiting for that."""

_CONNECT_TIMEOUT_S: Final = 2.0
_ANSWER_TIMEOUT_S: Final = 3.0
_SENTINEL_TIMEOUT_S: Final = 1.0
"""Sentinels answer at once, and the next one is asked only when this one is given up."""
_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:@/?#,\s]+)(?::([0-9]{1,5}))?")
_PATHS: Final = {"": r"/?([0-9]+)?", "sentinel": r"/([A-Za-z0-9._-]+)(?:/([0-9]+)?)?", "cluster": r"/?0?"}


class SentinelRefusedError(exceptions.AuthenticationError):
    """No Sentinel that answers takes the user and password for Sentinels."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of a store URL.

    Attributes:
        kind: Empty for one server, `sentinel`, or `cluster`.
        place: Hosts, service and database, for people to read. Holds no secret.
        nodes: Hosts with their ports.
        service: Name of the master that the Sentinels watch.
        tls: Whether all connections are encrypted.
    """

    kind: str
    place: str
    nodes: tuple[tuple[str, int], ...]
    service: str
    tls: bool
    _options: dict[str, Any] = field(repr=False)
    _sentinel_options: dict[str, str] = field(repr=False)

    def __str__(self) -> str:
        scheme = f"rediss{'+' * bool(self.kind)}{self.kind}" if self.tls else f"redis{'+' * bool(self.kind)}{self.kind}"
        return f"{scheme}://{self.place}"

    def open(self) -> Opened:
        """Return a client; it may have connected already.

        Raises:
            redis.RedisError: it must know about the servers to be made, and they do not answer.
        """
        return {"": self._open_server, "sentinel": self._open_master, "cluster": self._open_cluster}[self.kind]()

    def _open_server(self) -> Opened:
        pool = redis.ConnectionPool(host=self.nodes[0][0], port=self.nodes[0][1], retry=_no_retry(), **self._pool_options())
        client = redis.Redis.from_pool(pool)
        if not _is_cluster(client):
            return client, client.close
        client.close()
        return self._open_cluster()

    def _open_master(self) -> Opened:
        tls = {name: value for name, value in self._options.items() if name.startswith("ssl_")} | {"ssl": self.tls}
        timeouts = {"socket_connect_timeout": _SENTINEL_TIMEOUT_S, "socket_timeout": _SENTINEL_TIMEOUT_S, "protocol": 2}
        asking: dict[str, Any] = {**timeouts, **tls, **self._sentinel_options, "retry": _no_retry()}
        sentinels = _Sentinels(self.nodes, sentinel_kwargs=asking)
        client = sentinels.master_for(  # type: ignore[no-untyped-call]
            self.service, retry=_no_retry(), ssl=self.tls, **self._plain_options()
        )

        def close() -> None:
            client.close()
            sentinels.close()

        return client, close

    def _open_cluster(self) -> Opened:
        nodes = [ClusterNode(host, port) for host, port in self.nodes]  # type: ignore[no-untyped-call]
        options = {name: value for name, value in self._plain_options().items() if name != "db"}
        # No retry of its own: it follows a slot that has moved all the same, and the caller must know of every repetition.
        client = RedisCluster(startup_nodes=nodes, retry=_no_retry(), ssl=self.tls, **options)
        return client, client.close

    def _pool_options(self) -> dict[str, Any]:
        return _TIMEOUTS | self._options

    def _plain_options(self) -> dict[str, Any]:
        return {name: value for name, value in self._pool_options().items() if name != "connection_class"}


_TIMEOUTS: Final[dict[str, Any]] = {
    "protocol": 2,
    "socket_connect_timeout": _CONNECT_TIMEOUT_S,
    "socket_timeout": _ANSWER_TIMEOUT_S,
}


def parse_redis_url(url: str) -> RedisAddress:
    """Read a store URL.

    Raises:
        SettingsError: says what the URL should look like; never a piece of it, as it may be one of a password.
    """
    scheme = url.partition("://")[0]
    kind = scheme.partition("+")[2]
    try:
        if scheme in SCHEMES:
            return _parsed(url, kind)
    except (ValueError, TypeError, exceptions.RedisError):
        pass
    # Not chained: the original message may quote a piece of the password.
    raise SettingsError(f"the store URL cannot be used; write {FORMS.get(kind, FORMS[''])}")


def _parsed(url: str, kind: str) -> RedisAddress:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _PORTS[kind]) for host in (hosts.split(",") if kind else [hosts or "localhost"]))
    path = re.fullmatch(_PATHS[kind], parts.path)
    if path is None or parts.fragment:
        raise ValueError
    service = path[1] if kind == "sentinel" else ""
    database = None if kind == "cluster" else path[path.re.groups]
    tls = parts.scheme.startswith("rediss")
    query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    own = [(name, value) for name, value in query if not name.startswith("sentinel_")]
    for_sentinels = {name.removeprefix("sentinel_"): value for name, value in query if name.startswith("sentinel_")}
    if for_sentinels and (kind != "sentinel" or not for_sentinels.keys() <= {"username", "password"}):
        raise ValueError
    at = f"{credentials}@" if credentials else ""
    # redis-py reads one host; what it makes of user, password and options holds for all of them.
    options = parse_url(  # type: ignore[no-untyped-call]
        f"redis{'s' * tls}://{at}host/{database or ''}?{urlencode(own)}"
    )
    options.pop("host")
    # Refuses what it does not know; does not connect.
    redis.ConnectionPool(host="host", **options).make_connection()
    place = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in nodes) + parts.path.rstrip("/")
    return RedisAddress(kind, place, nodes, service, tls, options, for_sentinels)


def _node(text: str, default_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2] or default_port) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError
    return found[1].strip("[]"), port


class _Sentinels(Sentinel):
    """redis-py's, for many threads: it reorders its list as it looks, and two at once could lose a Sentinel from it."""

    def __init__(self, nodes: tuple[tuple[str, int], ...], sentinel_kwargs: dict[str, Any]) -> None:
        super().__init__(nodes, sentinel_kwargs=sentinel_kwargs)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return where the master is that the first Sentinel knows which answers and has one."""
        with self._lock:
            try:
                found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
            except MasterNotFoundError as error:
                # redis-py tells only in the text what each of them said.
                if "Authentication" in str(error):
                    raise SentinelRefusedError from error
                raise MasterNotFoundError(f"no Sentinel that answers has a master {service_name!r} that is up") from error
            except exceptions.NoPermissionError as error:
                raise SentinelRefusedError from error
        return found


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)


def _is_cluster(client: Any) -> bool:
    try:
        info = client.execute_command("INFO", "cluster")
    except exceptions.NoPermissionError:
        return False
    return bool(int(info.get("cluster_enabled", 0)))
