"""The port of a distributed worker: metrics for Prometheus, and whether it is alive and at work, for whoever restarts it."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from moodline.shared.errors import SettingsError
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.health import Health

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)


def make_worker_app(metrics: Metrics, health: Health) -> Application:
    """Return the WSGI application: `/healthz`, `/readyz`, and metrics on every other path.

    `/healthz` says that the loop turns and no partition stands still, or else what is wrong. A bus that is away is no reason to
    restart a worker. `/readyz` says that the worker's loop runs and waits for nobody: models are loaded, bus and store are there,
    and it has not been told to stop.
    """
    exposition: Application = make_wsgi_app(metrics.registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/healthz":
            return _answer(start_response, "ok", health.problem())
        if path == "/readyz":
            stopped = None if _works(metrics) else "the worker's loop does not run"
            return _answer(start_response, "ready", health.problem() or health.waiting() or stopped)
        return exposition(environ, start_response)

    return app


def _answer(start_response: Callable[..., Any], well: str, problem: str | None) -> list[bytes]:
    start_response("200 OK" if problem is None else "503 Service Unavailable", list(_TEXT))
    return [f"{problem or well}\n".encode()]


def start_worker_server(host: str, port: int, metrics: Metrics, health: Health) -> Callable[[], None]:
    """Serve in a thread of its own until the returned function is called, or the process ends.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    try:
        server = make_server(host, port, make_worker_app(metrics, health), _Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"the worker cannot listen on {host} port {port}: {reason}; set MOODLINE_WORKER_METRICS_HOST or "
            "MOODLINE_WORKER_METRICS_PORT"
        ) from None
    threading.Thread(target=server.serve_forever, name="worker-server", daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _works(metrics: Metrics) -> bool:
    return any(sample.value > 0 for family in metrics.worker_up.collect() for sample in family.samples)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10
    """A client that sends nothing for this time, in s, is disconnected."""

    def log_message(self, format: str, *args: object) -> None:
        """Requests of probes are no news."""
