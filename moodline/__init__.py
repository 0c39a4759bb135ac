"""Emotions in pictures, videos and cameras, in this process or from a service.

>>> import moodline
>>> faces = moodline.detect_emotions("photo.jpg")
>>> result = moodline.analyze("clip.mp4", sample_fps=5)
>>> for frame in moodline.stream("rtsp://camera/main"): ...

A service is asked by a client:

>>> from moodline import Client
>>> with Client() as moodline:
...     moodline.add_stream("lobby", "/srv/media/lobby.mp4")
...     moodline.wait_until_ended("lobby")
...     frame = moodline.timeline_frame("lobby", resolution="10s")

`Client` needs none of the workers' packages. It has a method for everything that the HTTP API can do; answers are the frozen
structs of `moodline.answers`.
"""

import sys as _sys

if not (3, 11) <= _sys.version_info[:2] <= (3, 14):  # before anything that other versions do not understand
    raise SystemExit("Moodline needs Python 3.11 to 3.14, and this is %d.%d" % _sys.version_info[:2])  # noqa: UP031

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from moodline.client import *  # noqa: F403
    from moodline.library import Box, LiveFrame, Result, Rows, analyze, detect_emotions, stream  # noqa: F401

_LIBRARY = ("Box", "LiveFrame", "Result", "Rows", "analyze", "detect_emotions", "stream")
"""Names that need the packages of the workers; the rest is the client's, which needs none of them."""


def __getattr__(name: str) -> Any:
    """Load the library or the client when one of its names is first used, so that `import moodline` alone loads neither."""
    if name == "__all__":
        return [*import_module("moodline.client").__all__, "__version__"]
    if name.startswith("_"):
        raise AttributeError(f"module 'moodline' has no attribute {name!r}")
    if name in _LIBRARY:
        return getattr(_library(name), name)
    client = import_module("moodline.client")
    if name not in client.__all__:
        raise AttributeError(f"module 'moodline' has no attribute {name!r}")
    return getattr(client, name)


def __dir__() -> list[str]:
    client = import_module("moodline.client")
    return sorted({*globals(), *client.__all__, *_LIBRARY})


def _library(name: str) -> Any:
    try:
        return import_module("moodline.library")
    except ModuleNotFoundError as error:
        if (error.name or "moodline").partition(".")[0] == "moodline":
            raise
        from moodline.errors import ClientError

        raise ClientError(
            f"moodline.{name} needs the package {error.name}, which is not installed: pip install 'moodline[embedded]'"
        ) from None
