import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError, ImageError
from moodline.training.data import Dataset, Split, cleaned, load_data, load_split
from moodline.training.data_report import report_data
from moodline.training.votes import load_votes, people, voted_targets

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
    assert data.part("train").names == ("row 0", "row 3", "row 6")
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


def write_votes(path: Path, rows: list[tuple[str, tuple[int, ...]]]) -> Path:
    """Write a FER+ CSV of image names and their ten counts, in the order of the header."""
    lines = [f"Training,{name},{','.join(str(count) for count in counts)}" for name, counts in rows]
    path.write_text("\n".join([VOTES_HEADER, *lines]) + "\n")
    return path


def named_split(names: tuple[str, ...], labels: list[int]) -> Split:
    return Split(np.stack([grey(index) for index in range(len(names))]), np.array(labels, np.int64), names)


def test_votes_and_the_label_share_a_target(tmp_path: Path) -> None:
    votes = load_votes(write_votes(tmp_path / "votes.csv", [("a.jpg", (4, 0, 0, 1, 3, 0, 0, 0, 0, 0))]))
    targets, weights = voted_targets(named_split(("a.jpg", "other.jpg"), [0, 2]), votes, 0.75, 0.1)
    assert targets[0] == pytest.approx([0.25 + 0.75 * 3 / 8, 0, 0, 0, 0.75 / 8, 0, 0.75 * 4 / 8])
    assert targets[1].tolist() == np.eye(7)[2].tolist()
    assert weights.tolist() == pytest.approx([1, 0.1])  # FER+ left the second image out


def test_an_image_counts_less_where_people_see_none_of_the_classes(tmp_path: Path) -> None:
    rows = [
        ("contempt.jpg", (2, 0, 0, 0, 3, 0, 0, 5, 0, 0)),
        ("unknown.jpg", (4, 0, 0, 0, 0, 0, 0, 0, 4, 0)),
        ("no-face.jpg", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10)),
        ("some-doubt.jpg", (8, 0, 0, 0, 0, 0, 0, 1, 1, 0)),
    ]
    votes = load_votes(write_votes(tmp_path / "votes.csv", rows))
    split = named_split(tuple(name for name, _ in rows), [0, 6, 6, 6])
    targets, weights = voted_targets(split, votes, 1.0, 0.2)
    assert weights.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.8])
    assert targets[0] == pytest.approx([0.6, 0, 0, 0, 0, 0, 0.4])
    assert targets[2].tolist() == np.eye(7)[6].tolist()  # nobody voted for a class: the label's
    seen = people(split, votes)
    assert seen.known.tolist() == [True, True, False, True]
    assert seen.majority[seen.known].tolist() == [0, 6, 6]


def test_images_of_fer2013_csv_get_the_votes_of_their_row(tmp_path: Path) -> None:
    # As in FER+'s own file: its names count only the rows that have one.
    none = (0,) * 10
    happy, sad, angry = (0, 9, 0, 0, 0, 0, 0, 0, 1, 0), (1, 0, 0, 9, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 10, 0, 0, 0, 0, 0)
    rows = [("fer0000000.png", happy), ("", none), ("fer0000001.png", sad), ("", none), ("fer0000002.png", angry)]
    votes = load_votes(write_votes(tmp_path / "fer2013new.csv", rows))
    data = load_data(make_csv(tmp_path / "fer2013.csv", [(str(label), pixels(label), "Training") for label in (3, 2, 4, 5, 0)]))
    seen = people(data.part("train"), votes)
    assert seen.known.tolist() == [True, False, True, False, True]
    assert [EMOTIONS[index] for index in seen.majority[seen.known]] == ["happy", "sad", "angry"]
    # Files that FER+'s own tool wrote carry its names.
    seen = people(named_split(("fer0000001.png", "fer0000002.png"), [4, 0]), votes)
    assert [EMOTIONS[index] for index in seen.majority] == ["sad", "angry"]


def test_votes_for_other_images_are_refused_with_the_figure(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 7, 300)
    columns = (4, 5, 6, 1, 3, 2, 0)  # of the header, by class
    rows = []
    for index, label in enumerate(labels):
        counts = [0] * 10
        counts[columns[label]] = 10
        rows.append((f"{index}.jpg", tuple(counts)))
    right = load_votes(write_votes(tmp_path / "votes.csv", rows))
    split = named_split(tuple(name for name, _ in rows), labels.tolist())
    assert people(split, right).majority.tolist() == labels.tolist()
    shuffled = [(f"{index}.jpg", rows[other][1]) for index, other in enumerate(random.permutation(300))]
    wrong = load_votes(write_votes(tmp_path / "wrong.csv", shuffled))
    with pytest.raises(DataError, match=r"agree with the labels in 1\d\.\d% of 300 images, and votes of other images would in 1"):
        voted_targets(split, wrong, 1.0)


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
    path.write_text(f"{VOTES_HEADER}\nTraining,,0,0,0,0,0,0,0,0,0,10\n")
    with pytest.raises(DataError, match="holds no votes"):
        load_votes(path)
