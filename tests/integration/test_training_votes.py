"""FER+'s votes on the real images of FER-2013, both as image files and as `fer2013.csv`."""

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest

from moodline.shared.errors import DataError
from moodline.training.data import Split, load_csv, load_split
from moodline.training.truths import load_truths
from moodline.training.unfold import unfolded
from moodline.training.votes import load_votes, people, voted_targets

pytestmark = pytest.mark.material

USAGES = {"train": "Training", "validation": "PublicTest"}


@pytest.fixture(scope="module")
def votes_file(material: Path) -> Path:
    path = material / "data" / "ferplus-votes.csv"
    if not path.is_file():
        pytest.skip(f"no votes at {path}")
    return path


@pytest.fixture(scope="module")
def validation(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The real validation part, from image files."""
    archive = material / "data" / "fer2013.tar.gz"
    if not archive.is_file():
        pytest.skip(f"no data set at {archive}")
    root = tmp_path_factory.mktemp("votes")
    with tarfile.open(archive) as packed:
        members = [member for member in packed.getmembers() if member.name.startswith("fer2013/validation/")]
        packed.extractall(root, members, filter="data")
    return load_split(root / "fer2013" / "validation")


def as_csv(split: Split, votes_file: Path, folder: Path) -> tuple[Path, Path, list[str]]:
    """Write real images and their votes as `fer2013.csv` and as FER+'s own CSV; return the images' names by row.

    Images that FER+ left out stand between the others, as in the real files, and have no name there.
    """
    with votes_file.open(newline="") as file:
        known = {row["Image name"]: row for row in csv.DictReader(file)}
    left_out = [index for index, name in enumerate(split.names) if name not in known]
    assert len(left_out) == 10
    chosen = sorted({*left_out, *range(0, len(split), 8)})
    order = [left_out[0], *np.random.default_rng(3).permutation([index for index in chosen if index != left_out[0]])]
    data, votes, counter = ["emotion,pixels,Usage"], [",".join(next(iter(known.values())))], 0
    for index in order:
        pixels = " ".join(map(str, split.images[index].ravel()))
        data.append(f"{split.labels[index]},{pixels},PublicTest")
        row = known.get(split.names[index])
        if row is None:
            votes.append("PublicTest,,0,0,0,0,0,0,0,0,0,10")
        else:
            votes.append(",".join({**row, "Image name": f"fer{counter:07d}.png"}.values()))
            counter += 1
    (folder / "fer2013.csv").write_text("\n".join(data) + "\n")
    (folder / "fer2013new.csv").write_text("\n".join(votes) + "\n")
    return folder / "fer2013.csv", folder / "fer2013new.csv", [split.names[index] for index in order]


def test_each_image_gets_its_own_votes_from_files_and_from_the_csv(validation: Split, votes_file: Path, tmp_path: Path) -> None:
    from_files = people(validation, load_votes(votes_file))
    assert int(from_files.known.sum()) == 3579
    assert (validation.labels == from_files.majority)[from_files.known].mean() == pytest.approx(0.638, abs=0.001)
    data, votes, names = as_csv(validation, votes_file, tmp_path)
    from_csv = people(load_csv(data).part("validation"), load_votes(votes))
    place = {name: index for index, name in enumerate(validation.names)}
    rows = [place[name] for name in names]
    assert (from_csv.known == from_files.known[rows]).all()
    assert (from_csv.shares == from_files.shares[rows]).all()


def test_votes_that_slipped_by_some_rows_are_refused_with_the_figure(validation: Split, votes_file: Path, tmp_path: Path) -> None:
    data, votes, _ = as_csv(validation, votes_file, tmp_path)
    part = load_csv(data).part("validation")
    # What a name-by-row reading did: each name is taken for the row of that number.
    loaded = load_votes(votes)
    rows = np.array([loaded.rows.get(f"fer{index:07d}.png", -1) for index in range(len(part))])
    found = np.flatnonzero(rows >= 0)
    slipped = Split(part.images[found], part.labels[found], tuple(f"fer{index:07d}.png" for index in found))
    with pytest.raises(DataError, match=r"agree with the labels in \d\d\.\d% of 4\d\d images"):
        voted_targets(slipped, loaded, 1.0)


def test_both_truths_are_measured_on_the_real_images(validation: Split, votes_file: Path) -> None:
    truths = load_truths(validation, str(votes_file))
    by_label = np.eye(7, dtype=np.float32)[validation.labels]
    assert truths.people_accuracy(by_label) == pytest.approx(0.6376, abs=1e-4)
    assert truths.score(by_label) == pytest.approx((1 + 0.6376) / 2, abs=1e-4)
    with pytest.raises(DataError, match="no image is named"):
        load_truths(Split(validation.images, validation.labels), str(votes_file))


def test_an_unfolded_model_answers_as_the_shipped_one(validation: Split) -> None:
    from moodline.services.classifier.artefact import load_artefact
    from moodline.services.classifier.factory import model_folder
    from moodline.training.architecture import SHIPPED
    from moodline.training.export import folded

    artefact = load_artefact(model_folder("fer-1"))
    again = folded(unfolded(artefact.weights, SHIPPED, validation.images[:64]), SHIPPED)
    for weight, expected in zip(again, artefact.weights, strict=True):
        assert weight == pytest.approx(expected, abs=2e-5)
