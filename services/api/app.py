"""The API's application."""

from importlib.metadata import version

from fastapi import Depends, FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from moodline.services.api import (
    alerts,
    audit,
    classifiers,
    classify,
    compare,
    docs_page,
    events,
    faces,
    health,
    keys,
    previews,
    push,
    streams,
    timelines,
    try_camera,
    uploads,
)
from moodline.services.api.access import describe_access
from moodline.services.api.admission import Admit
from moodline.services.api.context import Context, Intake, Readiness
from moodline.services.api.errors import install_error_handlers, problem_responses
from moodline.services.api.middleware import Cors, LimitBody, Measure, SameSite, SecurityHeaders
from moodline.services.api.requests import check_request
from moodline.services.api.semantics import Conditional, Head
from moodline.services.api.store_check import StoreCheck
from moodline.services.auth.authenticator import Authenticator
from moodline.services.auth.origins import origins_of
from moodline.services.live.feed import LiveFeed
from moodline.services.report.quick_json import ChunkCache
from moodline.shared.clock import Clock
from moodline.shared.metrics import Metrics
from moodline.shared.net_policy import NetPolicy, net_policy_of
from moodline.shared.seal import open_sealer
from moodline.shared.settings import IngestSettings, Settings
from moodline.shared.store import Store
from moodline.shared.store.model_choice import Catalogue


def create_app(
    store: Store,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    readiness: Readiness | None = None,
    catalogue: Catalogue | None = None,
    intake: Intake | None = None,
) -> FastAPI:
    """Return the ASGI application. It owns nothing: the caller closes the store.

    Args:
        store: Where streams and timelines are; thread-safe.
        settings: For the media root, the defaults of new streams, and the limits of answers.
        metrics: Where requests are counted, and what `/metrics` shows.
        clock: For registration times and times relative to now.
        readiness: Tells for `/readyz`, per worker in this process, whether it runs.
        catalogue: The models that can be chosen; without it, there are none.
        intake: What takes pushed frames and looks at uploads; without it, frames are refused and uploads taken as they are.

    Raises:
        SettingsError: the networks of cameras are not written as such.
    """
    app = FastAPI(
        title="Moodline",
        summary="Emotion timelines of video streams.",
        version=version("moodline"),
        docs_url=None,  # that page would load its scripts from a foreign host; see `docs_page`
        redoc_url=None,
        openapi_url=None,  # a route of our own, which refuses parameters as all others do
        redirect_slashes=False,
        dependencies=[Depends(check_request)],
        responses=problem_responses(
            "invalid_request",
            "not_acceptable",
            "unauthorized",
            "not_allowed",
            "forbidden",
            "rate_limited",
            "internal",
            "store_unavailable",
        ),
    )
    policy = _policy(settings.ingest)
    feed = LiveFeed(store, clock)
    authenticator = Authenticator(store, settings.api, clock, metrics.keys_refused.inc)
    app.state.context = Context(
        store, settings, metrics, clock, open_sealer(settings), policy, feed, authenticator, StoreCheck(store, clock),
        readiness, catalogue, intake or Intake(),
        stretches=ChunkCache(settings.api.timeline_cache_mb * 1_000_000),
    )  # fmt: skip
    app.state.before_stop = feed.close
    app.include_router(streams.router)
    app.include_router(try_camera.router)
    app.include_router(timelines.router)
    app.include_router(faces.router)
    app.include_router(events.router)
    app.include_router(push.router)
    app.include_router(previews.router)
    app.include_router(uploads.router)
    app.include_router(classify.router)
    app.include_router(compare.router)
    app.include_router(alerts.router)
    app.include_router(classifiers.router)
    app.include_router(keys.router)
    app.include_router(audit.router)
    app.include_router(health.router)
    app.include_router(docs_page.router)
    install_error_handlers(app)
    describe_access(app)
    # The last one added is the outermost.
    app.add_middleware(Admit, owner=app)
    app.add_middleware(Conditional)
    app.add_middleware(Head)
    app.add_middleware(LimitBody)
    app.add_middleware(SameSite, settings=settings.api)
    if origins := origins_of(settings.api.cors_origins):
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Measure, metrics=metrics, clock=clock)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.api.trusted_proxies)
    return app


def _policy(settings: IngestSettings) -> NetPolicy:
    return net_policy_of(settings.schemes, settings.allow_loopback, settings.allow_networks, settings.deny_networks)
