"""Redis as groups of processes: a master with replicas under Sentinel, and a cluster of masters with a replica each."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import redis

from tests.support.servers import HOST, RedisServer, ServerProcess, free_port, wait_until

SERVICE = "mood"
DOWN_AFTER_MS = 1000
NODE_TIMEOUT_MS = 2000


class RedisNode(RedisServer):
    """A Redis with options of its own, and the way in that it then needs."""

    def __init__(self, options: Mapping[str, object] | None = None, login: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.options = dict(options or {})
        self.login: dict[str, Any] = dict(login or {})

    def admin(self) -> Any:
        return redis.Redis(host=HOST, port=self.port, socket_timeout=2.0, **self.login)

    def set_state(self, *command: object) -> Any:
        """Send one command as the administrator."""
        with self.admin() as admin:
            return admin.execute_command(*command)

    @property
    def running(self) -> bool:
        return self._process is not None

    def _command(self) -> tuple[str, ...]:
        return (*super()._command(), *(part for key, value in self.options.items() for part in (f"--{key}", *str(value).split())))

    def _answers(self) -> bool:
        try:
            return bool(self.set_state("PING"))
        except redis.RedisError:
            return False


class SentinelServer(ServerProcess):
    """One Sentinel."""

    def __init__(self, lines: list[str], login: Mapping[str, object] | None = None, tls: bool = False) -> None:
        super().__init__("sentinel", None)
        self.port = free_port()
        self._config = self.folder / "sentinel.conf"
        self._login: dict[str, Any] = dict(login or {})
        ports = [f"port {0 if tls else self.port}", *([f"tls-port {self.port}"] if tls else [])]
        self._config.write_text("\n".join([*ports, f"bind {HOST}", f"dir {self.folder}", *lines]) + "\n")

    def set_state(self, *command: object) -> Any:
        with redis.Redis(host=HOST, port=self.port, socket_timeout=2.0, **self._login) as admin:
            return admin.execute_command(*command)

    def _command(self) -> tuple[str, ...]:
        return ("redis-server", str(self._config), "--sentinel")

    def _answers(self) -> bool:
        try:
            return bool(self.set_state("PING"))
        except redis.RedisError:
            return False


class SentinelGroup:
    """A master, replicas, and three Sentinels. A context manager."""

    def __init__(
        self,
        replicas: int = 2,
        options: Mapping[str, object] | None = None,
        login: Mapping[str, object] | None = None,
        sentinel_lines: list[str] | None = None,
        sentinel_login: Mapping[str, object] | None = None,
    ) -> None:
        self._stack = ExitStack()
        self._tls = bool(login and login.get("ssl"))
        self._node_options = dict(options or {})
        self._node_login = login
        self._sentinel_lines = sentinel_lines or []
        self._sentinel_login = sentinel_login
        self._replicas = replicas
        self.nodes: list[RedisNode] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            master = self._start_node(stack, {})
            for _ in range(self._replicas):
                self._start_node(stack, {"replicaof": f"{HOST} {master.port}"})
            lines = [
                f"sentinel monitor {SERVICE} {HOST} {master.port} 2",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {SERVICE} 3000",
                *self._sentinel_lines,
            ]
            for _ in range(3):
                self.sentinels.append(stack.enter_context(SentinelServer(lines, self._sentinel_login, self._tls)))
            wait_until(self._complete, 30, "Sentinels that know each other and the replicas")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def hosts(self) -> str:
        return ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{SERVICE}/0"

    def master(self) -> RedisNode:
        """Return the node that the Sentinels take for the master."""
        port = int(self.sentinels[0].set_state("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(node for node in self.nodes if node.port == port)

    def replicas(self) -> list[RedisNode]:
        master = self.master()
        return [node for node in self.nodes if node is not master and node.running]

    def settled(self) -> bool:
        """Say whether all replicas that run follow the master."""
        replicas = self.replicas()
        return all(_follows(node, self.master().port) for node in replicas) and len(replicas) == self._replicas

    def _start_node(self, stack: ExitStack, own: Mapping[str, object]) -> RedisNode:
        options = {**self._node_options, **own}
        node = RedisNode(options, self._node_login)
        if self._tls:
            node.options |= {"port": 0, "tls-port": node.port, "tls-replication": "yes"}
        self.nodes.append(stack.enter_context(node))
        return node

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            state = sentinel.set_state("SENTINEL", "MASTER", SERVICE)
            if int(state[b"num-slaves"]) < self._replicas or int(state[b"num-other-sentinels"]) < 2:
                return False
        return self.settled()


class RedisClusterNode(RedisNode):
    """One node of a cluster; its bus has a port of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bus_port = free_port()
        self.options |= {"cluster-enabled": "yes", "cluster-port": self.bus_port, "cluster-node-timeout": NODE_TIMEOUT_MS}


class ClusterGroup:
    """Masters with one replica each. A context manager."""

    def __init__(self, masters: int = 3) -> None:
        self._masters = masters
        self._stack = ExitStack()
        self.nodes: list[RedisClusterNode] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.nodes = [stack.enter_context(RedisClusterNode()) for _ in range(2 * self._masters)]
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[: self._masters])

    def master_of(self, key: str) -> RedisClusterNode:
        """Return the master that has a key's slot."""
        slot = int(self._anyone().set_state("CLUSTER", "KEYSLOT", key))
        with self._anyone().admin() as admin:
            for low, high, master in _slots(admin):
                if low <= slot <= high:
                    return next(node for node in self.nodes if node.port == master)
        raise AssertionError(f"no node has slot {slot}")

    def replica_of(self, master: RedisClusterNode) -> RedisClusterNode:
        return next(node for node in self.nodes if node is not master and node.running and _follows(node, master.port))

    def settled(self) -> bool:
        """Say whether all nodes run, agree that all is well, and have a master that they are in step with or a replica."""
        if not all(node.running for node in self.nodes):
            return False
        followers = [node for node in self.nodes if any(_follows(node, other.port) for other in self.nodes if other is not node)]
        return len(followers) == self._masters and all(_healthy(node) for node in self.nodes)

    def _anyone(self) -> RedisClusterNode:
        return next(node for node in self.nodes if node.running)

    def _join(self) -> None:
        share = 16384 // self._masters
        for number, node in enumerate(self.nodes):
            node.set_state("CLUSTER", "MEET", HOST, self.nodes[0].port, self.nodes[0].bus_port)
            if number < self._masters:
                last = 16383 if number == self._masters - 1 else (number + 1) * share - 1
                node.set_state("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        wait_until(lambda: all(_healthy(node) and _known(node) == len(self.nodes) for node in self.nodes), 30, "a cluster")
        for number, node in enumerate(self.nodes[self._masters :]):
            node.set_state("CLUSTER", "REPLICATE", self.nodes[number].set_state("CLUSTER", "MYID"))
        wait_until(self.settled, 30, "replicas in step")


def _slots(admin: Any) -> list[tuple[int, int, int]]:
    return [(int(low), int(high), int(master[1])) for low, high, master, *_ in admin.execute_command("CLUSTER", "SLOTS")]


def _healthy(node: RedisNode) -> bool:
    with node.admin() as admin:
        return bool(admin.cluster("INFO")["cluster_state"] == "ok")


def _known(node: RedisNode) -> int:
    with node.admin() as admin:
        return len(admin.cluster("NODES"))


def _follows(node: RedisNode, port: int) -> bool:
    with node.admin() as admin:
        state = admin.info("replication")
    return state["role"] == "slave" and state["master_port"] == port and state["master_link_status"] == "up"


def cut_off(master: RedisNode, replicas: list[RedisNode]) -> None:
    """Let nothing that the master takes from now on reach its replicas."""
    for replica in replicas:
        replica.set_state("CONFIG", "SET", "masterauth", "a-password-that-the-master-refuses")
    master.set_state("CLIENT", "KILL", "TYPE", "REPLICA")
    for replica in replicas:
        wait_until(lambda replica=replica: not _follows(replica, master.port), 10, "a broken link")  # type: ignore[misc]


def reconnect(replicas: list[RedisNode]) -> None:
    """Undo `cut_off`."""
    for replica in replicas:
        replica.set_state("CONFIG", "SET", "masterauth", "")
