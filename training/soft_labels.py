"""Write what models answer for the training images, each seen in ten views, as targets for another run.

`python -m moodline.training.soft_labels --model training/runs/first --data fer2013 --out soft.npz`; a configuration names the
file as `distil.soft_labels`. A run that learns from the averaged views of its own predecessor is taught to doubt labels that the
predecessor could not agree with (Furlanello et al., "Born-again neural networks", 2018).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moodline.services.classifier.model import Probabilities
from moodline.training.augment import Images
from moodline.training.conditions import ten_crop_mean
from moodline.training.data import TRAIN, load_data
from moodline.training.predictor import open_predictor
from moodline.training.runs import write_arrays


def soft_labels(models: Sequence[str], images: Images) -> Probabilities:
    """Return the mean answer of the models over ten views of each image, float32 (N, 7).

    Args:
        models: Names of shipped models, folders of artefacts or of runs.
        images: uint8 (N, 48, 48).

    Raises:
        ModelError: a model cannot be used.
    """
    answers = [ten_crop_mean(open_predictor(model)[0], images) for model in models]
    mean: Probabilities = np.mean(answers, 0).astype(np.float32)
    return mean


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="a model or a run; may be given several times")
    parser.add_argument("--data", type=Path, required=True, help="image folder or CSV with the training part")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    arguments = parser.parse_args()
    images = load_data(arguments.data).part(TRAIN).images
    write_arrays(arguments.out, {"probabilities": soft_labels(arguments.model, images)})
    print(f"{len(images)} rows in {arguments.out}")


if __name__ == "__main__":
    main()
