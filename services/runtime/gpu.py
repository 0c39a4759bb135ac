"""Load of NVIDIA GPUs, from the library that comes with their driver. Nothing to install, and no metric where there is none."""

import ctypes
from functools import partial
from typing import Any, Final

from moodline.shared.metrics import Metrics

_LIBRARY: Final = "libnvidia-ml.so.1"


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def watch_gpus(metrics: Metrics, library: Any = None) -> int:
    """Show the GPUs that this process sees in its metrics; they are asked when the metrics are read.

    Args:
        metrics: Where they are shown.
        library: NVIDIA's management library; None: the driver's own, if there is one.

    Returns:
        How many there are.
    """
    nvml = _open() if library is None else library
    count = ctypes.c_uint()
    if nvml is None or nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return 0
    for index in range(count.value):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) == 0:
            metrics.gpu_busy.labels(str(index)).set_function(partial(_busy, nvml, device))
            metrics.gpu_memory_bytes.labels(str(index)).set_function(partial(_used_bytes, nvml, device))
    return count.value


def _open() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def _busy(nvml: Any, device: ctypes.c_void_p) -> float:
    found = _Utilization()
    return found.gpu / 100 if nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(found)) == 0 else 0.0


def _used_bytes(nvml: Any, device: ctypes.c_void_p) -> float:
    found = _Memory()
    return float(found.used) if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(found)) == 0 else 0.0
