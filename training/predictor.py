"""Anything that can be measured, behind the classifier's `Model` seam: a served artefact, or a training run's best weights."""

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from moodline.services.classifier.artefact import Artefact, load_artefact
from moodline.services.classifier.factory import model_folder
from moodline.services.classifier.keras_model import KerasModel
from moodline.services.classifier.mirror import with_views
from moodline.services.classifier.model import Crops, Model, Probabilities
from moodline.services.classifier.openvino_model import OpenVinoModel
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import ModelError
from moodline.training.average import ordered
from moodline.training.backend import import_keras
from moodline.training.measures import tempered
from moodline.training.network import float32_network, softmax
from moodline.training.runs import BEST, CONFIG, load_arrays, load_record, load_result

_BATCH: Final = 256


class NetworkModel:
    """A Keras network of any backend as a `Model`.

    Args:
        name: Of the model.
        network: uint8 (N, 48, 48) -> float32 (N, 7).
        logits: The network answers logits, not probabilities.
        temperature: What logits are divided by.
    """

    def __init__(self, name: str, network: Any, *, logits: bool, temperature: float = 1.0) -> None:
        self.name, self._network, self._logits, self._temperature = name, network, logits, temperature

    def predict(self, crops: Crops) -> Probabilities:
        if not len(crops):
            return np.empty((0, len(EMOTIONS)), np.float32)
        answer: Probabilities = np.asarray(self._network.predict(crops, batch_size=_BATCH, verbose=0), np.float32)
        if self._logits:
            return softmax(answer / np.float32(self._temperature))
        return answer

    def close(self) -> None:
        """Nothing to release."""


def open_predictor(model: str) -> tuple[Model, float]:
    """Return a model ready to answer, and the temperature that is part of its answers (1: none is).

    Args:
        model: Name of a shipped model, folder of an artefact, or folder of a training run.

    Raises:
        ModelError: neither, or its files cannot be used.
    """
    folder = Path(model)
    if (folder / CONFIG).is_file():
        return open_run(folder)
    artefact = load_artefact(model_folder(model))
    return served_model(artefact), float(artefact.manifest.metrics.get("temperature", 1.0))


def open_run(run: Path) -> tuple[Model, float]:
    """Return the model of a run's best weights, with its temperature if it has ended.

    Raises:
        ModelError: the folder holds no run, or not yet an epoch.
    """
    record, result = load_record(run), load_result(run)
    if not (run / BEST).is_file():
        raise ModelError(f"{run} has no weights yet: its first epoch has not ended")
    network = float32_network(import_keras(), record.config.model)
    load_into(network, run)
    temperature = result.temperature if result else 1.0
    return NetworkModel(record.config.name, network, logits=True, temperature=temperature), temperature


def load_into(network: Any, run: Path) -> None:
    """Give a network the best weights of a run.

    Raises:
        ModelError: they do not fit it.
    """
    try:
        network.set_weights(ordered(network.weights, load_arrays(run / BEST)))
    except (KeyError, ValueError) as error:
        raise ModelError(f"{run / BEST} does not fit the network: {error}") from None


def untempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return what a model would answer without its temperature."""
    return probabilities if temperature == 1.0 else tempered(probabilities, 1 / temperature).astype(np.float32)


def served_model(artefact: Artefact) -> Model:
    """Return the artefact in the fastest engine that is installed and computes in float32; else in Keras' present backend.

    It answers as it does in the service, with as many views of a face as its manifest says.
    """
    return with_views(single_view_model(artefact), artefact.manifest.views)


def single_view_model(artefact: Artefact) -> Model:
    """Return the artefact's network alone, whatever views its manifest asks for."""
    if importlib.util.find_spec("openvino") is not None:
        return OpenVinoModel(artefact, _BATCH, 0, "float32")
    other = "keras" in sys.modules and import_keras().config.backend() != "tensorflow"
    if importlib.util.find_spec("tensorflow") is not None and not other:
        return KerasModel(artefact, _BATCH)
    # Keras consumes what it is given.
    network = import_keras().Model.from_config(copy.deepcopy(artefact.manifest.architecture))
    network.set_weights(list(artefact.weights))
    return NetworkModel(artefact.manifest.name, network, logits=False)
