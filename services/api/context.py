"""The context that every request handler works with."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from moodline.services.api.concurrency import ConcurrencyLimit
from moodline.services.api.store_check import StoreCheck
from moodline.services.auth.authenticator import Authenticator
from moodline.services.live.feed import LiveFeed
from moodline.services.report.quick_json import ChunkCache
from moodline.shared.classify import PictureClassifier
from moodline.shared.clock import Clock
from moodline.shared.metrics import Metrics
from moodline.shared.net_policy import NetPolicy
from moodline.shared.previews import Previews
from moodline.shared.probe import CameraProber, Prober
from moodline.shared.push import Pushes
from moodline.shared.seal import Sealer
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.store.model_choice import Catalogue


@dataclass(frozen=True, slots=True)
class Intake:
    """Entry points for frames, files, pictures and cameras.

    `pushes` is None where there is no bus, `prober` where nothing decodes, `pictures` where there are no models, `previews`
    where no detector's pictures come, `camera_prober` where nothing reads cameras.
    """

    pushes: Pushes | None = None
    prober: Prober | None = None
    pictures: PictureClassifier | None = None
    previews: Previews | None = None
    camera_prober: CameraProber | None = None


Readiness = Callable[[], dict[str, bool]]
"""A function that returns for each part of the process besides the store whether it can work."""


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
    authenticator: Authenticator
    store_check: StoreCheck
    readiness: Readiness | None = None
    catalogue: Catalogue | None = None
    intake: Intake = Intake()
    concurrency: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    registering: threading.Lock = field(default_factory=threading.Lock)
    """Held while something is counted and added, so that many at the same time are no more than one key may have."""
    audited_at: dict[tuple[str, str, str], float] = field(default_factory=dict)
    stretches: ChunkCache = field(default_factory=lambda: ChunkCache(0))

    def now_us(self) -> int:
        """Return wall-clock time, microseconds since the Unix epoch, UTC."""
        return int(self.clock.now_s() * 1_000_000)


CONTEXT_KEY: Final = "moodline.context"
"""The key of a connection's scope that holds the context, for applications that are mounted in the API's."""


def context_of(connection: HTTPConnection) -> Context:
    """Return the context that a request, an event stream or a web socket is to be answered with."""
    context: Context = connection.scope.get(CONTEXT_KEY) or connection.app.state.context
    return context


Ctx = Annotated[Context, Depends(context_of)]
"""Parameter type by which a handler gets the context."""
