"""The classifier's network in OpenVINO, the engine for CPUs."""

import os
import threading
from typing import Any, Final

import numpy as np

from moodline.services.classifier.artefact import Artefact
from moodline.services.classifier.model import Crops, Probabilities, check_crops
from moodline.services.classifier.openvino_graph import build_network
from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError
from moodline.shared.openvino_runtime import (
    bfloat16_agrees,
    chosen_precision,
    cpu_options,
    first_line,
    import_openvino,
    open_core,
)

_TOLERANCE: Final = 0.15
"""Tolerated error of a probability in bfloat16; on noise, the shipped models are off by 0.01."""


class OpenVinoModel:
    """Runs an artefact as a network of a fixed shape, uint8 (batch_size, 48, 48); shorter batches are padded.

    A crop's answer is the same bit for bit whatever its neighbours, its place in the batch, the number of threads and the
    process (of one kind of processor and one precision): the shape never changes, and each batch is computed by one thread.
    Several batches run side by side on `threads` threads.

    Args:
        artefact: A checked artefact.
        batch_size: Crops per call of the network.
        threads: Batches at the same time; 0: one per core.
        precision: `float32`; `bfloat16`, the numbers that newer processors multiply several times faster; or `auto`:
            bfloat16 where the processor has instructions for it, else float32. Where bfloat16 proves wrong, float32 after all.

    Raises:
        ModelError: OpenVINO is missing, the architecture or the precision cannot be had, or the weights do not fit.
    """

    def __init__(self, artefact: Artefact, batch_size: int, threads: int = 0, precision: str = "auto") -> None:
        openvino = import_openvino()
        self.name = artefact.manifest.name
        self._batch_size = batch_size
        threads = threads or os.cpu_count() or 1
        core = open_core()
        self._lock = threading.Lock()
        self._requests: list[Any] = []
        network = build_network(openvino, artefact, batch_size)
        self._start(core, network, threads, chosen_precision(core, precision))
        if self.precision == "bfloat16" and not self._bfloat16_is_right(core, network):
            self._start(core, network, threads, "float32")

    def predict(self, crops: Crops) -> Probabilities:
        check_crops(crops)
        starts = range(0, len(crops), self._batch_size)
        answers = np.empty((len(crops), len(EMOTIONS)), np.float32)
        with self._lock:
            requests = self._requests
            for number, at in enumerate(starts):
                if number >= len(requests):
                    self._take(starts[number - len(requests)], number, answers)
                requests[number % len(requests)].start_async({0: self._padded(crops[at : at + self._batch_size])})
            for number in range(max(0, len(starts) - len(requests)), len(starts)):
                self._take(starts[number], number, answers)
        return answers

    def close(self) -> None:
        with self._lock:
            self._requests = []

    def _start(self, core: Any, network: Any, threads: int, precision: str) -> None:
        try:
            compiled = core.compile_model(network, "CPU", cpu_options(precision, threads))
            self._requests = [compiled.create_infer_request() for _ in range(threads)]
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the model {self.name}: {first_line(error)}") from None
        self.precision = precision
        self._warm_up()

    def _bfloat16_is_right(self, core: Any, network: Any) -> bool:
        crops = np.random.default_rng(0).integers(0, 256, (self._batch_size, CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
        exact = core.compile_model(network, "CPU", cpu_options("float32", 1)).create_infer_request()
        exact.infer({0: crops})
        return bfloat16_agrees([self.predict(crops)], [exact.get_output_tensor(0).data], _TOLERANCE, self.name, str(crops.shape))

    def _take(self, at: int, number: int, answers: Probabilities) -> None:
        """Wait for the batch that starts at `at`, and copy its answer."""
        request: Any = self._requests[number % len(self._requests)]
        try:
            request.wait()
        except RuntimeError as error:
            raise ModelError(f"OpenVINO failed on the model {self.name}: {first_line(error)}") from None
        answers[at : at + self._batch_size] = request.get_output_tensor(0).data[: len(answers) - at]

    def _padded(self, batch: Crops) -> Crops:
        missing = self._batch_size - len(batch)
        return np.pad(batch, ((0, missing), (0, 0), (0, 0))) if missing else np.ascontiguousarray(batch)

    def _warm_up(self) -> None:
        """Run every request once, so that no first frame waits for allocations, and see that answers are distributions."""
        answers = self.predict(np.full((len(self._requests) * self._batch_size, CROP_SIDE_PX, CROP_SIDE_PX), 128, np.uint8))
        if not np.isfinite(answers).all() or (np.abs(answers.sum(1) - 1) > 1e-3).any():
            raise ModelError(f"the model {self.name} does not answer with probabilities")
