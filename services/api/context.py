"""What every handler works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.live_feed import LiveFeed
from shared.clock import Clock
from shared.metrics import Metrics
from shared.model_choice import Catalogue
from shared.net_policy import NetPolicy
from shared.seal import Sealer
from shared.settings import Settings
from shared.store import Store

Readiness = Callable[[], dict[str, bool]]
"""Tells, per part of the process besides the store, whether it can work."""


@dataclass(frozen=True, slots=True)
class Context:
    """The API's collaborators; one per app, shared by all requests, so all of them are thread-safe."""

    store: Store
    settings: Settings
    metrics: Metrics
    clock: Clock
    sealer: Sealer
    policy: NetPolicy
    feed: LiveFeed
    readiness: Readiness | None = None
    catalogue: Catalogue | None = None

    def now_us(self) -> int:
        """Return wall-clock time, microseconds since the Unix epoch, UTC."""
        return int(self.clock.now_s() * 1_000_000)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]
"""Parameter type by which a handler gets the context."""
