"""Find the training photos with faces that a detector misses: `training/detector/configs/deep-4.toml` draws these more often.

    python -m moodline.training.detector.mine --model models/face-small --images faces-unlabelled.tar --labels labels.jsonl \
        --out hard.json

A face counts as missed where the detector, at its own threshold and the photo's full size, has no box on it that overlaps by a
half. The file says for each photo how many large faces (from 24 px) are missed. Photos that are held out are not looked at.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np

from moodline.services.detector.own import OwnDetector
from moodline.training.detector.labels import overlap
from moodline.training.detector.photos import Photo, Rules, load_photos
from moodline.training.runs import write_json

LEAST_PX: Final = 24
_IOU: Final = 0.5
_SIDE_PX: Final = 480


def missed(detector: OwnDetector, photo: Photo, rules: Rules, least_px: float = LEAST_PX) -> int:
    """Return how many of the faces that are taught, and that are large enough, a detector does not find in a photo."""
    known = photo.boxes[rules.taught(photo.boxes)]
    longer = np.maximum(known[:, 2] - known[:, 0], known[:, 3] - known[:, 1])
    known = known[longer >= least_px]
    if not len(known):
        return 0
    found = detector.detect(photo.image)
    return int((overlap(known, found).max(1, initial=0) < _IOU).sum())


def main() -> None:
    """Read the command line, search and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "images", "labels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    detector = OwnDetector(arguments.model, None, _SIDE_PX)
    photos = load_photos(arguments.images, arguments.labels, held_out=False)
    counts = {photo.name: count for photo in photos if (count := missed(detector, photo, Rules()))}
    write_json(arguments.out, counts)
    print(f"{sum(counts.values())} faces from {LEAST_PX} px are missed in {len(counts)} of {len(photos)} photos")


if __name__ == "__main__":
    main()
