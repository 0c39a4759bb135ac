"""TensorFlow's import, made quiet and repeatable. It is slow (seconds) and takes 0.5 GB, so only who computes with it does it."""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from moodline.shared.errors import ModelError

_CHATTER = re.compile(rb"^(?:[IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions)")


def import_tensorflow() -> Any:
    """Return the `tensorflow` module, set up for the same answers in every process. Returns at once after the first time.

    Its libraries read these variables while they load, so they are set here, not in the settings:

    - oneDNN on: measured fastest, and its convolutions handle each image of a batch alike.
    - one thread per operation: sums are then never split differently. Batches run side by side instead, which is
      faster too (3,000 against 2,200 crops/s on two cores).

    Raises:
        ModelError: it is not installed, or Keras was set to another backend.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with _without_chatter() if quiet else nullcontext():
            tensorflow = importlib.import_module("tensorflow")
            backend = tensorflow.keras.config.backend()
    except ImportError as error:
        raise ModelError(f"TensorFlow cannot be imported ({error}): install moodline[tensorflow]") from None
    if backend != "tensorflow":
        raise ModelError(f"Keras is in use with the backend {backend} in this process")
    _configure(tensorflow)
    return tensorflow


def _configure(tensorflow: Any) -> None:
    threading = tensorflow.config.threading
    threading.set_intra_op_parallelism_threads(1)
    threading.set_inter_op_parallelism_threads(os.cpu_count() or 1)
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.set_memory_growth(gpu, True)
        tensorflow.config.experimental.enable_op_determinism()
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep what is written to standard error and pass it on at the end, without TensorFlow's start-up notes.

    They are written by C++ before its log level counts, so only the file descriptor can hold them back.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(2, line)
