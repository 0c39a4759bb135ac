import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError, ImageError
from moodline.training.data import Dataset, Split, cleaned, load_data, load_split
from moodline.training.data_report import report_data
from moodline.training.votes import load_votes, voted_targets

USAGES = ("Training", "PublicTest", "PrivateTest")


def grey(value: int) -> np.ndarray:
    """Return an image with some contrast, another one for each value."""
    return (np.arange(48 * 48).reshape(48, 48) // 48 + value).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def make_folder(root: Path, splits: tuple[str, ...] = ("train", "validation")) -> Path:
    """Write one image of each class into each split."""
    for at, split in enumerate(splits):
        for index, name in enumerate(EMOTIONS):
            save(root / split / name / "a.png", grey(20 * at + index))
    return root


def make_csv(path: Path, rows: list[tuple[str, str, str]], header: str = "emotion,pixels,Usage") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def pixels(value: int) -> str:
    return " ".join(str(int(pixel)) for pixel in grey(value).ravel())


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("Training", "PublicTest", "PrivateTest")])
def test_folders_name_the_official_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = load_data(make_folder(tmp_path, names))
    assert list(data.parts) == ["train", "validation", "test"]
    for at, split in enumerate(data.parts.values()):
        assert split.labels.tolist() == list(range(7))
        assert all((image == grey(20 * at + index)).all() for index, image in enumerate(split.images))


def test_a_file_names_its_part_before_its_folder_does(tmp_path: Path) -> None:
    # A widespread copy keeps PublicTest and PrivateTest together in `test`.
    make_folder(tmp_path, ("train",))
    save(tmp_path / "test" / "happy" / "PublicTest_1.png", grey(1))
    save(tmp_path / "test" / "happy" / "PrivateTest_2.png", grey(2))
    data = load_data(tmp_path)
    assert {name: len(split) for name, split in data.parts.items()} == {"train": 7, "validation": 1, "test": 1}
    assert (data.part("validation").images[0] == grey(1)).all()


def test_prefixes_alone_are_enough_and_classes_may_be_numbers(tmp_path: Path) -> None:
    save(tmp_path / "3" / "Training_1.png", grey(1))
    save(tmp_path / "Sad" / "PublicTest_1.png", grey(2))
    data = load_data(tmp_path)
    assert data.part("train").labels.tolist() == [EMOTIONS.index("happy")]
    assert data.part("validation").labels.tolist() == [EMOTIONS.index("sad")]


def test_a_file_of_no_part_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "happy" / "1.png", grey(1))
    with pytest.raises(DataError, match="belongs to no split"):
        load_data(tmp_path)


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folders of classes"):
        load_data(tmp_path)
    make_folder(tmp_path)
    with pytest.raises(DataError, match="has no part 'test'; it has train, validation"):
        load_data(tmp_path).part("test")
    save(tmp_path / "train" / "contempt" / "a.png", grey(1))
    with pytest.raises(DataError, match="'contempt' is no class"):
        load_data(tmp_path)


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, ("train", "holdout"))
    with pytest.raises(DataError, match="'holdout' is no split"):
        load_data(tmp_path)


def test_a_part_read_alone_needs_every_class(tmp_path: Path) -> None:
    for name in EMOTIONS[:-1]:
        save(tmp_path / name / "a.jpg", grey(1))
    with pytest.raises(DataError, match="no images of class neutral"):
        load_split(tmp_path)


def test_another_size_and_broken_images_are_errors(tmp_path: Path) -> None:
    make_folder(tmp_path)
    wide = tmp_path / "train" / "happy" / "b.png"
    save(wide, np.zeros((48, 49), np.uint8))
    with pytest.raises(ImageError, match=r"b\.png is 49x48 px, not 48x48"):
        load_data(tmp_path)
    buffer = io.BytesIO()
    Image.fromarray(grey(1)).save(buffer, "PNG")
    for content in (b"", b"no image at all", buffer.getvalue()[: len(buffer.getvalue()) // 2]):
        wide.write_bytes(content)
        with pytest.raises(ImageError, match=r"b\.png cannot be decoded"):
            load_data(tmp_path)


def test_colour_and_jpeg_are_read_as_grey(tmp_path: Path) -> None:
    make_folder(tmp_path)
    Image.fromarray(np.stack([grey(90)] * 3, 2)).save(tmp_path / "train" / "happy" / "b.jpg", quality=95)
    split = load_data(tmp_path).part("train")
    row = split.names.index("b.jpg")
    assert np.abs(split.images[row].astype(int) - grey(90)).max() < 6


def test_the_csv_is_read_as_published(tmp_path: Path) -> None:
    rows = [(str(index), pixels(index), USAGES[index % 3]) for index in range(7)]
    data = load_data(make_csv(tmp_path / "fer2013.csv", rows))
    assert data.part("train").labels.tolist() == [0, 3, 6]
    assert data.part("validation").labels.tolist() == [1, 4]
    assert data.part("train").names == ("fer0000000.png", "fer0000003.png", "fer0000006.png")
    assert (data.part("test").images[0] == grey(2)).all()


def test_columns_may_come_in_any_order_and_case(tmp_path: Path) -> None:
    data = load_data(make_csv(tmp_path / "a.csv", [("4", "Training", pixels(1))], "emotion, Usage, pixels"))
    assert data.part("train").labels.tolist() == [4]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("7", pixels(1), "Training"), "emotion '7'"),
        (("happy", pixels(1), "Training"), "emotion 'happy'"),
        (("0", pixels(1), "Holdout"), "Usage 'Holdout'"),
        (("0", "1 2 3", "Training"), "3 pixels, not 48x48"),
        (("0", "", "Training"), "0 pixels"),
        (("0", pixels(1) + " 5", "Training"), "2305 pixels"),
        (("0", pixels(1).replace(" 9 ", " x ", 1), "Training"), "not a whole number"),
        (("0", pixels(1).replace(" 9 ", " 9.5 ", 1), "Training"), "not a whole number"),
        (("0", pixels(1).replace(" 9 ", " 256 ", 1), "Training"), "not from 0 to 255"),
        (("0", pixels(1).replace(" 9 ", " -1 ", 1), "Training"), "not from 0 to 255"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: tuple[str, str, str], message: str) -> None:
    path = make_csv(tmp_path / "fer2013.csv", [("0", pixels(0), "Training"), row])
    with pytest.raises(DataError, match="line 3: .*" + message):
        load_data(path)


def test_a_csv_without_what_it_needs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'pixels'"):
        load_data(make_csv(tmp_path / "a.csv", [], "emotion,image,Usage"))
    with pytest.raises(DataError, match="holds no images"):
        load_data(make_csv(tmp_path / "b.csv", []))
    with pytest.raises(DataError, match="line 2: 2 values, not 3"):
        load_data(make_csv(tmp_path / "c.csv", [("0", "1")]))  # type: ignore[list-item]
    (tmp_path / "d.csv").write_bytes(b"emotion,pixels,Usage\n\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV"):
        load_data(tmp_path / "d.csv")


def test_the_report_counts_what_is_wrong() -> None:
    flat = np.full((48, 48), 9, np.uint8)
    train = Split(np.stack([grey(1), grey(2), grey(2), grey(3), grey(3), flat]), np.array([0, 1, 1, 2, 3, 4], np.int64))
    validation = Split(np.stack([grey(1), grey(7)]), np.array([0, 6], np.int64))
    report = report_data(Dataset({"train": train, "validation": validation}))
    part = report.parts["train"]
    assert (part.images, part.copies, part.conflicts, part.blank) == (6, 2, 1, 1)
    assert part.classes["disgust"] == 2
    assert part.missing == ("surprise", "neutral")
    assert report.leaks == {"train & validation": 1}
    assert "in both train & validation: 1" in report.text()
    assert "no image of surprise in train" in report.text()


def test_cleaning_drops_what_cannot_teach() -> None:
    flat = np.full((48, 48), 9, np.uint8)
    images = [grey(1), grey(2), grey(2), grey(3), grey(3), flat, grey(4), grey(5)]
    train = Split(np.stack(images), np.array([0, 1, 1, 2, 3, 4, 5, 6], np.int64))
    kept = cleaned(train, Split(np.stack([grey(4)]), np.array([5], np.int64)))
    # One of two equal images, none of those with two labels, none without contrast, none that validation holds.
    assert kept.labels.tolist() == [0, 1, 6]
    assert [image[0, 0] for image in kept.images] == [1, 2, 5]


VOTES_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def test_votes_become_distributions(tmp_path: Path) -> None:
    path = tmp_path / "fer2013new.csv"
    path.write_text(
        f"{VOTES_HEADER}\nTraining,fer0000000.png,4,0,0,1,3,0,0,2,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\n"
        "Training,fer0000002.png,0,0,0,0,0,0,0,10,0,0\n"
    )
    votes = load_votes(path)
    assert list(votes) == ["fer0000000.png"]  # one has no name, one no vote for any of the seven
    split = Split(np.stack([grey(0), grey(2)]), np.array([0, 2], np.int64), ("fer0000000.png", "fer0000002.png"))
    targets = voted_targets(split, votes, 0.5)
    assert targets[0] == pytest.approx([0.5 + 0.5 * 3 / 8, 0, 0, 0, 0.5 / 8, 0, 0.5 * 4 / 8])
    assert targets[1].tolist() == np.eye(7)[2].tolist()


def test_votes_that_fit_nothing_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(f"{VOTES_HEADER}\nTraining,fer0000000.png,4,0,0,1,-3,0,0,2,0,0\n")
    with pytest.raises(DataError, match="line 2: a vote"):
        load_votes(path)
    path.write_text(f"{VOTES_HEADER}\nTraining,fer0000000.png,4,0,0,1,3,0,0,2,0,0\n")
    other = Split(grey(0)[None], np.array([0], np.int64), ("Training_1.jpg",))
    with pytest.raises(DataError, match="no image is named as in the votes"):
        voted_targets(other, load_votes(path), 1.0)
    path.write_text("Usage,Image name\n")
    with pytest.raises(DataError, match="no column 'anger'"):
        load_votes(path)
