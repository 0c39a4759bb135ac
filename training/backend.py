"""Keras with a backend. It must be chosen before Keras is imported, so nothing else in `training` imports it by itself."""

import importlib.util
import os
import sys
from typing import Any

from moodline.services.classifier.tensorflow_import import import_tensorflow
from moodline.shared.errors import ModelError


def import_keras() -> Any:
    """Return the `keras` module. Blocks for seconds the first time.

    The backend is the one that Keras runs with in this process already, or what KERAS_BACKEND says, or torch where it is
    installed (on a CPU the fastest for training), or TensorFlow.

    Raises:
        ModelError: that backend is not installed.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    wanted = os.environ.get("KERAS_BACKEND") or ("torch" if importlib.util.find_spec("torch") else "tensorflow")
    if wanted == "tensorflow":
        import_tensorflow()
    os.environ["KERAS_BACKEND"] = wanted  # read by Keras while it loads
    try:
        import keras
    except ImportError as error:
        raise ModelError(f"Keras cannot be imported with the backend {wanted} ({error}): install moodline[train]") from None
    return keras


def set_threads(keras: Any, count: int) -> None:
    """Let the torch backend use `count` threads; 0: as many as it likes. TensorFlow decides when it is imported."""
    if count and keras.config.backend() == "torch":
        import torch

        torch.set_num_threads(count)
