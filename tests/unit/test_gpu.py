"""GPUs in the metrics, from an imitation of NVIDIA's library."""

from typing import Any

from moodline.services.runtime.gpu import watch_gpus
from moodline.shared.metrics import Metrics


class StubNvml:
    """Two GPUs; `status` is what every question is answered with."""

    def __init__(self, init_status: int = 0) -> None:
        self.init_status = init_status
        self.status = 0
        self.busy_percent = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.init_status

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:  # noqa: N802
        device._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetUtilizationRates(self, device: Any, found: Any) -> int:  # noqa: N802
        found._obj.gpu = self.busy_percent * device.value
        return self.status

    def nvmlDeviceGetMemoryInfo(self, device: Any, found: Any) -> int:  # noqa: N802
        found._obj.used = 1000 * device.value
        return self.status


def test_each_gpu_shows_how_busy_it_is_when_it_is_asked() -> None:
    metrics, nvml = Metrics(), StubNvml()
    assert watch_gpus(metrics, nvml) == 2
    nvml.busy_percent = 40
    value = metrics.registry.get_sample_value
    assert value("moodline_gpu_busy_ratio", {"gpu": "0"}) == 0.4
    assert value("moodline_gpu_busy_ratio", {"gpu": "1"}) == 0.8
    assert value("moodline_gpu_memory_bytes", {"gpu": "1"}) == 2000
    nvml.status = 999
    assert value("moodline_gpu_busy_ratio", {"gpu": "1"}) == 0, "a GPU that fell off the bus is no error of the metrics"


def test_without_a_driver_there_are_none() -> None:
    metrics = Metrics()
    assert watch_gpus(metrics, StubNvml(init_status=9)) == 0
    assert metrics.registry.get_sample_value("moodline_gpu_busy_ratio", {"gpu": "0"}) is None
