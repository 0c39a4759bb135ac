"""Ask a Moodline from Python.

>>> from moodline import Client
>>> with Client() as moodline:
...     moodline.add_stream("lobby", "/srv/media/lobby.mp4")
...     moodline.wait_until_ended("lobby")
...     frame = moodline.timeline_frame("lobby", resolution="10s")

`Client` has a method for everything that the HTTP API can do; answers are the frozen structs of `moodline.answers`.
"""

import sys as _sys

if not (3, 11) <= _sys.version_info[:2] <= (3, 14):  # before anything that other versions do not understand
    raise SystemExit("Moodline needs Python 3.11 to 3.14, and this is %d.%d" % _sys.version_info[:2])  # noqa: UP031

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from moodline.client import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Load the client when one of its names is first used, so that a worker's `import moodline.…` does not load it."""
    if name == "__all__":
        return [*import_module("moodline.client").__all__, "__version__"]
    if name.startswith("_"):
        raise AttributeError(f"module 'moodline' has no attribute {name!r}")
    client = import_module("moodline.client")
    if name not in client.__all__:
        raise AttributeError(f"module 'moodline' has no attribute {name!r}")
    return getattr(client, name)


def __dir__() -> list[str]:
    client = import_module("moodline.client")
    return sorted({*globals(), *client.__all__})
