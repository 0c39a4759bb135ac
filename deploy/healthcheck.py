#!/usr/bin/env -S python -I
"""Tell a container engine whether the process in this container works; exit code 0 or 1. Standard library only: it runs often.

The argument says what to ask: `api` answers for itself at /readyz, a `worker` at /healthz, a `camera` listens.
"""

import os
import socket
import sys
from http.client import HTTPConnection, HTTPException

_TIMEOUT_S = 3.0
_RTSP_PORT = 8554


def check_api() -> bool:
    """Ask whether the API can work; any status but 200 raises `OSError`."""
    _get(os.environ["MOODLINE_API_PORT"], "readyz")
    return True


def check_worker() -> bool:
    """Ask whether the worker's loop turns and its partitions move; any status but 200 raises `OSError`, with what is wrong."""
    _get(os.environ["MOODLINE_WORKER_METRICS_PORT"], "healthz")
    return True


def check_camera() -> bool:
    """Connect to the simulated camera."""
    socket.create_connection(("127.0.0.1", _RTSP_PORT), _TIMEOUT_S).close()
    return True


def _get(port: str, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_S)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise OSError(f"status {answer.status}: {body.decode(errors='replace').strip()}")
    return body


CHECKS = {"api": check_api, "worker": check_worker, "camera": check_camera}

if __name__ == "__main__":
    try:
        sys.exit(0 if CHECKS[sys.argv[1]]() else "the worker's loop does not run")
    except (OSError, HTTPException) as error:
        sys.exit(f"no answer: {error}")
