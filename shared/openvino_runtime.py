"""OpenVINO, in which networks run on CPUs: its runtime alone, one core for the process, and the numbers it counts with."""

import importlib
import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from moodline.shared.errors import ModelError

log = logging.getLogger("moodline.openvino")

PRECISIONS: Final = ("auto", "float32", "bfloat16")

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
        raise ModelError(f"OpenVINO cannot be imported ({error}): install moodline[classifier], or moodline[detector]") from None
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


def chosen_precision(core: Any, wanted: str) -> str:
    """Return `float32` or `bfloat16`: what is wanted, or for `auto` bfloat16 where the processor has instructions for it.

    Raises:
        ModelError: it cannot be had.
    """
    if wanted not in PRECISIONS:
        raise ModelError(f"there is no precision {wanted!r}; there are {', '.join(PRECISIONS)}")
    # OpenVINO's own choice is bfloat16 exactly where the processor has instructions for it.
    has_bfloat16 = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string() == "bf16"
    if wanted == "bfloat16" and not has_bfloat16:
        raise ModelError("this processor has no instructions for bfloat16; set the precision to auto")
    return wanted if wanted != "auto" else ("bfloat16" if has_bfloat16 else "float32")


def cpu_options(precision: str, threads: int) -> dict[str, Any]:
    """Return the options of a network that answers `threads` requests at a time, each on one thread."""
    return {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,  # one thread each
        "ENABLE_CPU_PINNING": False,  # workers that share a machine must not share a core
    }


def bfloat16_agrees(answers: Iterable[Any], exact: Iterable[Any], tolerance: float, model: str, shape: str) -> bool:
    """Say whether no number of the answers is farther than `tolerance` from the one counted in float32; log it where one is.

    Processors are told to count in bfloat16 by code that is made for each kind of them and each shape, and for some it is
    wrong: OpenVINO 2026.4 reads what is not its own where a picture is one cell wide, and multiplies wrongly on Zen 5
    (its issue 38256). So nobody goes on with bfloat16 before it has been held against float32 once.
    """
    for answer, right in zip(answers, exact, strict=True):
        if not np.max(np.abs(np.asarray(answer, np.float64) - right), initial=0) <= tolerance:  # `not`, for it may be no number
            log.warning("model.bfloat16_refused", extra={"model": model, "shape": shape})
            return False
    return True


def first_line(error: Exception) -> str:
    """Return what OpenVINO's error says, without its stack."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from")]
    return lines[0][:200] if lines else type(error).__name__
