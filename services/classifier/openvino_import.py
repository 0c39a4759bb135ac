"""OpenVINO's import: its runtime alone, and one core for the process."""

import importlib
import sys
import threading
from typing import Any

from shared.errors import ModelError

_CONVERTER = "openvino.tools.ovc"

_lock = threading.Lock()
_cores: list[Any] = []


def import_openvino() -> Any:
    """Return the `openvino` module; takes 0.3 s the first time.

    The converter of foreign model formats is kept out: it is not needed, and it brings along a package that reports its use
    over the network. OpenVINO does without it where it is missing.

    Raises:
        ModelError: it is not installed.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    known = sys.modules.get(_CONVERTER)
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # the import system's own sign for "not to be had"
    try:
        openvino = importlib.import_module("openvino")
        importlib.import_module("openvino.opset13")
    except ImportError as error:
        raise ModelError(f"OpenVINO cannot be imported ({error}): install moodline[classifier]") from None
    finally:
        if known is None:
            del sys.modules[_CONVERTER]
        else:
            sys.modules[_CONVERTER] = known
    return openvino


def open_core() -> Any:
    """Return the process's one `openvino.Core`. Thread-safe.

    It is never released while the process lives. For the processor's matrix unit, OpenVINO's CPU plug-in gives the thread that
    first asks for it another stack for signals, and frees it with the last user of the plug-in; were that another thread, the
    next SIGTERM would end the process with a segmentation fault.

    Raises:
        ModelError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    with _lock:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]
