"""The classifier's network in TensorFlow, the engine for GPUs."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np

from moodline.services.classifier.artefact import Artefact
from moodline.services.classifier.model import Crops, Probabilities, check_crops
from moodline.services.classifier.tensorflow_import import import_tensorflow
from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError


class KerasModel:
    """Runs an artefact as one function of a fixed signature, uint8 (batch_size, 48, 48); shorter batches are padded.

    A crop's answer is the same bit for bit whatever its neighbours, its place in the batch, the number of threads and the
    process (of one kind of processor): the shape never changes, an operation runs on one thread, convolutions were measured to
    treat all places alike, and a dense layer multiplies row by row. Several batches run side by side on `threads` threads.

    Args:
        artefact: A checked artefact.
        batch_size: Crops per call of the network.
        threads: Batches at the same time; 0: one per core.

    Raises:
        ModelError: TensorFlow is missing, or the weights do not fit the architecture.
    """

    def __init__(self, artefact: Artefact, batch_size: int, threads: int = 0) -> None:
        tensorflow = import_tensorflow()
        network = _built(tensorflow.keras, artefact)
        signature = tensorflow.TensorSpec((batch_size, CROP_SIDE_PX, CROP_SIDE_PX), tensorflow.uint8)

        def call(crops: Any) -> Any:
            return network(crops, training=False)

        self.name = artefact.manifest.name
        self._network = network  # holds the variables that the function only refers to
        self._function = tensorflow.function(call, input_signature=[signature]).get_concrete_function()
        self._constant = tensorflow.constant
        self._batch_size = batch_size
        threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="classifier") if threads > 1 else None
        self._warm_up()

    def predict(self, crops: Crops) -> Probabilities:
        check_crops(crops)
        batches = [crops[at : at + self._batch_size] for at in range(0, len(crops), self._batch_size)]
        if not batches:
            return np.empty((0, len(EMOTIONS)), np.float32)
        if len(batches) == 1 or self._pool is None:
            return np.concatenate([self._run(batch) for batch in batches])
        return np.concatenate(list(self._pool.map(self._run, batches)))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _run(self, batch: Crops) -> Probabilities:
        missing = self._batch_size - len(batch)
        padded = np.pad(batch, ((0, missing), (0, 0), (0, 0))) if missing else batch
        answer: Probabilities = self._function(self._constant(padded)).numpy()
        return answer[: len(batch)]

    def _warm_up(self) -> None:
        """Run once, so that no first frame waits for allocations, and see that the answer is a distribution."""
        answer = self._run(np.full((1, CROP_SIDE_PX, CROP_SIDE_PX), 128, np.uint8))
        if answer.dtype != np.float32 or not np.isfinite(answer).all() or abs(float(answer.sum()) - 1) > 1e-3:
            raise ModelError(f"the model {self.name} does not answer with probabilities")


def _built(keras: Any, artefact: Artefact) -> Any:
    """Return the Keras model of an artefact, with its weights."""
    name = artefact.manifest.name
    try:
        # Keras takes apart what it is given.
        network = keras.Model.from_config(deepcopy(artefact.manifest.architecture))
        network = keras.models.clone_model(network, clone_function=_row_by_row(keras))
        taken, answered = (network.input_shape, str(network.inputs[0].dtype)), network.output_shape
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(f"the architecture of the model {name} cannot be built: {error}") from None
    if taken != ((None, CROP_SIDE_PX, CROP_SIDE_PX), "uint8"):
        raise ModelError(f"the model {name} takes {taken}, not uint8 crops")
    if answered != (None, len(EMOTIONS)):
        raise ModelError(f"the model {name} answers {answered}, not {len(EMOTIONS)} classes")
    wanted, given = [tuple(weight.shape) for weight in network.weights], [weight.shape for weight in artefact.weights]
    if wanted != given:
        raise ModelError(f"the weights of the model {name} have other shapes than its architecture")
    network.set_weights(artefact.weights)
    return network


def _row_by_row(keras: Any) -> Callable[[Any], Any]:
    """Return what copies a layer, and makes a dense one multiply each crop's row by itself.

    A product of whole matrices takes rows in blocks, of six with AVX2, and the last, smaller block adds in another order: the
    crops there got other last bits.
    """

    class RowDense(keras.layers.Dense):  # type: ignore[misc]
        """Takes (N, C)."""

        def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002  # Keras' signature
            rows = keras.ops.matmul(keras.ops.expand_dims(inputs, 1), keras.ops.expand_dims(self.kernel, 0))
            answer = keras.ops.squeeze(rows, 1)
            return self.activation(answer + self.bias if self.use_bias else answer)

    def copied(layer: Any) -> Any:
        kind = RowDense if type(layer) is keras.layers.Dense else type(layer)
        return kind.from_config(layer.get_config())

    return copied
