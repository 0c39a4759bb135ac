"""Methods about the service itself: its models, who may ask it, what was changed, and whether it works."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from urllib.parse import quote

from moodline.answers import Caller, Change, ChangePage, Key, KeyPage, Models, NewKey, Ready
from moodline.client._given import Names, names, query, when
from moodline.client._link import PREFIX, Link
from moodline.errors import ServiceError

_PAGE: Final = 500


class ServiceMethods:
    """Part of `Client`."""

    _link: Link

    def list_models(self) -> Models:
        """Return the installed models, and which is active."""
        return self._link.ask(Models, "GET", "/models")

    def activate_model(self, name: str) -> Models:
        """Let all classifiers use another model."""
        return self._link.ask(Models, "PUT", "/models/active", json={"name": name})

    def whoami(self) -> Caller:
        """Return who asks, and what they may do and see."""
        return self._link.ask(Caller, "GET", "/session")

    def add_key(
        self,
        name: str,
        role: str,
        *,
        streams: Names | None = None,
        labels: Names | None = None,
        expires_at: datetime | str | None = None,
    ) -> NewKey:
        """Make an API key. The answer is the only place where it is ever shown.

        Args:
            name: Who is going to use it; unique.
            role: `viewer`, `operator` or `admin`.
            streams: Ids of streams that it is limited to.
            labels: `key=value` or `key`: it is limited to streams with one of them, and to `streams`.
            expires_at: From when on it is worth nothing.
        """
        given = query(name=name, role=role, expires_at=when(expires_at))
        given |= {} if streams is None else {"streams": names(streams)}
        given |= {} if labels is None else {"labels": names(labels)}
        return self._link.ask(NewKey, "POST", "/keys", json=given)

    def list_keys(self) -> list[Key]:
        """Return all keys, ordered by name, without what is secret of them."""
        return self._link.ask(KeyPage, "GET", "/keys").keys

    def remove_key(self, name: str) -> None:
        """Remove a key; it is refused within seconds."""
        self._link.send("DELETE", f"{PREFIX}/keys/{quote(name, safe='')}")

    def audit(self) -> Iterator[Change]:
        """Iterate over who changed what and when, newest first."""
        asked = query(limit=_PAGE)
        while True:
            page = self._link.ask(ChangePage, "GET", "/audit", params=asked)
            yield from page.changes
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def health(self) -> bool:
        """Return True: the process answers. Raises `UnreachableError` where it does not."""
        self._link.send("GET", "/healthz")
        return True

    def ready(self) -> Ready:
        """Return whether every part that is needed works."""
        try:
            return self._link.decoded(self._link.send("GET", "/readyz", repeats=False), Ready)
        except ServiceError as error:
            if error.code != "not_ready":
                raise
            return Ready(ready=False, reason=error.message)

    def metrics(self) -> str:
        """Return the metrics of the process that answers, in Prometheus' text format."""
        return self._link.send("GET", "/metrics").text
