"""Running workers as processes: signals, metrics port, exit codes."""

import logging
import signal
import threading
from contextlib import ExitStack, closing
from types import FrameType

from moodline.services.alerts.service import AlertService
from moodline.services.classifier.catalogue import ModelCatalogue
from moodline.services.mqtt.bridge import MqttBridge
from moodline.services.runtime.bootstrap import (
    build,
    open_bus_on_demand,
    open_camera_prober,
    open_picture_classifier,
    open_prober,
    require_shared_bus,
    wait_for_resources,
)
from moodline.services.runtime.liveness import end_when_dead
from moodline.services.runtime.worker_server import start_worker_server
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.clock_offset import ClockWatch
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health
from moodline.shared.previews import open_previews
from moodline.shared.push import Pushes
from moodline.shared.settings import Settings
from moodline.shared.store import Store

log = logging.getLogger("moodline.process")


def stop_on_signal(stop: threading.Event) -> None:
    """Set `stop` at SIGINT or SIGTERM; a second signal ends the process at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        log.info("process.signal", extra={"signal": signal.Signals(number).name})
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def run_worker(kind: str, settings: Settings) -> None:
    """Run one worker of a kind until a signal comes. Blocks.

    Raises:
        MoodlineError: why it could not start or go on.
    """
    require_shared_bus(settings)
    metrics, stop = Metrics(settings.worker.stream_metrics), threading.Event()
    health = Health(metrics, SystemClock())
    stop_on_signal(stop)
    if settings.worker.metrics_port:
        start_worker_server(settings.worker.metrics_host, settings.worker.metrics_port, metrics, health)
    end_when_dead(health)
    resources = wait_for_resources(settings, metrics, stop, health, kind)
    if resources is not None:
        with resources:
            build(kind, resources).run(stop)


def run_embedded(settings: Settings) -> None:
    """Run every worker and the API in this process until a signal comes. Blocks."""
    from moodline.services.api.app import create_app
    from moodline.services.api.context import Intake
    from moodline.services.api.server import ApiServer
    from moodline.services.runtime.embedded import EmbeddedService, own_data_dir
    from moodline.services.web import mount_page

    _check_access(settings)
    with own_data_dir(settings.data_path()), EmbeddedService(settings) as service:
        stop_on_signal(service.stop)
        resources = service.resources
        catalogue = ModelCatalogue(settings.classifier)
        alerts = AlertService(resources.store, settings, resources.metrics, resources.clock)
        mqtt = MqttBridge(resources.store, settings, resources.metrics, resources.clock)
        app = create_app(
            resources.store,
            settings,
            resources.metrics,
            resources.clock,
            readiness=lambda: service.alive() | alerts.alive() | mqtt.alive(),
            catalogue=catalogue,
            intake=Intake(
                service.pushes,
                open_prober(settings),
                open_picture_classifier(settings, resources.store),
                resources.previews,
                open_camera_prober(settings),
            ),
        )
        mount_page(app)
        with ApiServer(app, settings.api.host, settings.api.port) as server, alerts, mqtt:
            log.info("service.ready", extra={"url": server.url})
            service.stop.wait()
        service.check()


def run_api(settings: Settings) -> None:
    """Run the API alone until a signal comes. Blocks."""
    from moodline.services.api.app import create_app
    from moodline.services.api.context import Intake
    from moodline.services.api.server import ApiServer
    from moodline.services.runtime.bootstrap import retention
    from moodline.services.web import mount_page
    from moodline.shared.store import open_store

    _check_access(settings)
    stop = threading.Event()
    stop_on_signal(stop)
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings.store_url(), retention(settings))))
        metrics = Metrics(settings.worker.stream_metrics)
        watch = stack.enter_context(closing(ClockWatch(store.time_s, SystemClock(), metrics)))
        watch.start()
        clock = watch.clock
        pushes = _pushes(stack, store, settings, metrics, clock)
        previews = stack.enter_context(closing(open_previews(settings.store_url(), clock)))
        intake = Intake(
            pushes, open_prober(settings), open_picture_classifier(settings, store), previews, open_camera_prober(settings)
        )
        alerts = AlertService(store, settings, metrics, clock)
        mqtt = MqttBridge(store, settings, metrics, clock)
        catalogue = ModelCatalogue(settings.classifier)
        alive = lambda: alerts.alive() | mqtt.alive()  # noqa: E731
        app = create_app(store, settings, metrics, clock, readiness=alive, catalogue=catalogue, intake=intake)
        mount_page(app)
        with ApiServer(app, settings.api.host, settings.api.port) as server, alerts, mqtt:
            log.info("service.ready", extra={"url": server.url})
            stop.wait()


def _check_access(settings: Settings) -> None:
    """Refuse to serve others than this machine without keys, before anything is started."""
    from moodline.services.auth.authenticator import require_access
    from moodline.services.runtime.bootstrap import retention
    from moodline.shared.store import open_store

    with closing(open_store(settings.store_url(), retention(settings))) as store:
        require_access(store, settings.api, SystemClock())


def _pushes(stack: ExitStack, store: Store, settings: Settings, metrics: Metrics, clock: Clock) -> Pushes | None:
    """Return what takes pushed frames in an API process, closed with `stack`; None where no worker could get them."""
    from moodline.services.ingest.push.hub import PushHub

    bus = open_bus_on_demand(settings, metrics, clock)
    if bus is None:
        return None
    stack.callback(bus.close)
    return stack.enter_context(PushHub(store, settings, metrics, clock, bus.producer))
