"""OpenVINO's import: its runtime alone."""

import importlib
import sys
from typing import Any

from shared.errors import ModelError

_CONVERTER = "openvino.tools.ovc"


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
