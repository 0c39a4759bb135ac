"""A run whose weights were not trained here but come from elsewhere: written like any other, so that it can be exported."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moodline.training.data import VALIDATION, load_data
from moodline.training.measures import accuracy, calibration_error, cross_entropy, fitted_temperature, tempered
from moodline.training.predictor import open_run
from moodline.training.runs import BEST, CONFIG, RESULT, RunRecord, RunResult, write_arrays, write_json


def write_run(
    out: Path, record: RunRecord, weights: Mapping[str, npt.NDArray[np.float32]], data: Path, epochs: int = 0
) -> RunResult:
    """Write a run of these weights, measured and calibrated on the validation part of `data`.

    Args:
        out: Folder of the run.
        record: What is to stand in its `config.json`.
        weights: By name, as `best.npz` holds them.
        data: Image folder or CSV.
        epochs: How many were trained, as far as they belong to this run.
    """
    write_json(out / CONFIG, record)
    write_arrays(out / BEST, weights)
    validation = load_data(data).part(VALIDATION)
    answers, labels = open_run(out)[0].predict(validation.images), validation.labels
    temperature = fitted_temperature(answers, labels)
    calm = tempered(answers, temperature)
    result = RunResult(
        epochs=epochs,
        best_epoch=max(0, epochs - 1),
        accuracy=round(accuracy(answers, labels), 6),
        cross_entropy=round(cross_entropy(calm, labels), 4),
        calibration_error=round(calibration_error(answers, labels), 4),
        calibration_error_tempered=round(calibration_error(calm, labels), 4),
        temperature=round(temperature, 4),
        minutes=0.0,
    )
    write_json(out / RESULT, result)
    return result
