"""Running workers as processes: signals, metrics port, exit codes."""

import logging
import signal
import threading
from types import FrameType

from prometheus_client import start_http_server

from services.bootstrap import build, open_resources, require_shared_bus
from services.classifier.catalogue import ModelCatalogue
from services.embedded import EmbeddedService, own_data_dir
from shared.settings import Settings

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
    with open_resources(settings) as resources:
        stop_on_signal(resources.stop)
        if settings.worker.metrics_port:
            start_http_server(settings.worker.metrics_port, settings.worker.metrics_host, resources.metrics.registry)
        build(kind, resources).run(resources.stop)


def run_embedded(settings: Settings) -> None:
    """Run every worker and the API in this process until a signal comes. Blocks."""
    from services.api.app import create_app
    from services.api.server import ApiServer
    from services.web import mount_page

    with own_data_dir(settings.data_path()), EmbeddedService(settings) as service:
        stop_on_signal(service.stop)
        resources = service.resources
        catalogue = ModelCatalogue(settings.classifier)
        app = create_app(
            resources.store, settings, resources.metrics, resources.clock, readiness=service.alive, catalogue=catalogue
        )
        mount_page(app)
        with ApiServer(app, settings.api.host, settings.api.port) as server:
            log.info("service.ready", extra={"url": server.url})
            service.stop.wait()
        service.check()


def run_api(settings: Settings) -> None:
    """Run the API alone until a signal comes. Blocks."""
    from services.api.app import create_app
    from services.api.server import ApiServer
    from services.bootstrap import retention
    from services.web import mount_page
    from shared.clock import SystemClock
    from shared.metrics import Metrics
    from shared.store import open_store

    stop = threading.Event()
    stop_on_signal(stop)
    store = open_store(settings.store_url(), retention(settings))
    try:
        app = create_app(store, settings, Metrics(), SystemClock(), catalogue=ModelCatalogue(settings.classifier))
        mount_page(app)
        with ApiServer(app, settings.api.host, settings.api.port) as server:
            log.info("service.ready", extra={"url": server.url})
            stop.wait()
    finally:
        store.close()
