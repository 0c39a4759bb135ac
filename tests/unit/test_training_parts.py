"""Figures, augmentation, targets, batches and configuration: all without a network."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.shared.errors import DataError, SettingsError
from moodline.training.augment import augmented, mixed
from moodline.training.batches import Batches
from moodline.training.conditions import CONDITIONS, flipped_mean, ten_crop_mean
from moodline.training.config import AugmentConfig, DistilConfig, LossConfig, ScheduleConfig, TrainConfig, load_config
from moodline.training.data import Split
from moodline.training.evaluate import classification_report, confident_errors, evaluate_model
from moodline.training.measures import (
    calibration_error,
    class_figures,
    confusion,
    cross_entropy,
    fitted_temperature,
    macro_f1,
    roc,
    tempered,
    wilson,
)
from moodline.training.report import html_page
from moodline.training.runs import write_arrays
from moodline.training.targets import TrainTargets, class_weights, make_targets
from moodline.training.train import learning_rate

NOTHING = AugmentConfig(
    shift=0, scale_min=1, scale_max=1, stretch=0, rotation_deg=0, flip=0, gamma=0, contrast_min=1, contrast_max=1,
    brightness=0, low_resolution=0, jpeg=0, noise=0, erasing=0,
)  # fmt: skip


def faces(count: int, seed: int = 0) -> np.ndarray:
    """Return smooth images."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:48, 0:48] / 48
    waves = [np.sin(6 * rows * a + b) + np.cos(6 * columns * c + d) for a, b, c, d in random.random((count, 4)) * 2]
    return (127 + 60 * np.stack(waves)).astype(np.uint8)


class StubModel:
    """Says `happy` for bright images and `sad` for dark ones, surer the farther from the middle."""

    name = "stub"

    def predict(self, crops: np.ndarray) -> np.ndarray:
        answer = np.full((len(crops), 7), 0.01, np.float32)
        bright = crops.mean((1, 2)) / 255
        answer[:, 3], answer[:, 4] = 0.95 * bright, 0.95 * (1 - bright)
        return answer

    def close(self) -> None:
        pass


def test_augmentation_follows_from_the_seed_alone() -> None:
    images = faces(32)
    before = images.copy()
    first, again, other = (augmented(images, np.random.default_rng(seed), AugmentConfig()) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    assert (images == before).all()
    assert first.dtype == np.uint8
    assert first.shape == images.shape


def test_augmentation_without_strength_changes_nothing() -> None:
    images = faces(8)
    assert (augmented(images, np.random.default_rng(1), NOTHING) == images).all()
    assert (augmented(images, np.random.default_rng(1), AugmentConfig(enabled=False)) == images).all()


@pytest.mark.parametrize(
    "change",
    [
        {"shift": 0.1}, {"scale_min": 0.8, "scale_max": 0.9}, {"stretch": 0.1}, {"rotation_deg": 20}, {"flip": 1},
        {"gamma": 0.5}, {"contrast_min": 0.5, "contrast_max": 0.6}, {"brightness": 0.3}, {"low_resolution": 1}, {"jpeg": 1},
        {"noise": 1}, {"erasing": 1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_each_change_does_something_of_its_own(change: dict[str, float]) -> None:
    images = faces(16)
    changed = augmented(images, np.random.default_rng(1), msgspec.structs.replace(NOTHING, **change))
    assert (changed != images).any((1, 2)).mean() > 0.7
    assert np.abs(changed.astype(int) - images).mean() < 80


def test_a_flip_is_a_mirror_and_a_scale_is_about_the_centre() -> None:
    images = faces(4)
    flipped = augmented(images, np.random.default_rng(1), msgspec.structs.replace(NOTHING, flip=1))
    assert np.abs(flipped.astype(int) - images[:, :, ::-1]).max() <= 1
    cross = np.zeros((1, 48, 48), np.uint8)
    cross[:, 23:25, 23:25] = 255
    larger = augmented(cross, np.random.default_rng(1), msgspec.structs.replace(NOTHING, scale_min=0.5, scale_max=0.5))
    places = np.argwhere(larger[0] > 127)
    assert places.mean(0).tolist() == pytest.approx([23.5, 23.5], abs=0.1)
    assert len(places) == pytest.approx(16, abs=4)


def test_mixup_is_the_weighted_mean() -> None:
    images, order = faces(6), np.array([1, 2, 3, 4, 5, 0])
    expected = 0.3 * images + 0.7 * images[order].astype(float)
    assert np.abs(mixed(images, 0.3, order) - expected).max() <= 0.51


def evenly(targets: np.ndarray) -> TrainTargets:
    """Return targets of images that all count the same."""
    return TrainTargets(targets, np.ones(len(targets), np.float32))


def test_batches_follow_from_seed_and_epoch_and_mix_targets_as_images() -> None:
    images, targets = faces(40), np.eye(7, dtype=np.float32)[np.arange(40) % 7]
    config = TrainConfig(schedule=ScheduleConfig(batch=8), loss=LossConfig(mixup=1.0, mixup_alpha=1.0), augment=NOTHING)

    def epoch(number: int) -> list[np.ndarray]:
        batches = Batches(config, images, evenly(targets), np.ones(7, np.float32))
        assert batches.steps == 5
        return [part for batch in batches.epoch(number) for part in batch]

    first, again, other = epoch(3), epoch(3), epoch(4)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert all(np.allclose(part.sum(1), 1) for part in first[1::2])
    assert any((part.max(1) < 0.95).any() for part in first[1::2])


def test_a_mixed_target_is_the_mixture_that_its_image_is() -> None:
    labels = np.arange(28) % 7
    images = np.repeat(30 * labels, 48 * 48).reshape(28, 48, 48).astype(np.uint8)  # the grey value says the class
    config = TrainConfig(schedule=ScheduleConfig(batch=14), loss=LossConfig(mixup=1.0, mixup_alpha=0.3), augment=NOTHING)
    for batch in Batches(config, images, evenly(np.eye(7, dtype=np.float32)[labels]), np.ones(7, np.float32)).epoch(0):
        assert batch.images.mean((1, 2)) == pytest.approx(30 * batch.targets @ np.arange(7), abs=0.6)


def test_an_image_counts_as_much_in_the_loss_as_its_weight_says() -> None:
    images = np.repeat(30 * np.arange(6), 48 * 48).reshape(6, 48, 48).astype(np.uint8)  # the grey value says which it is
    targets = TrainTargets(np.eye(7, dtype=np.float32)[:6], np.array([0.1, 1, 2, 1, 0.5, 1], np.float32))
    config = TrainConfig(loss=LossConfig(mixup=0), augment=NOTHING)
    batch = next(Batches(config, images, targets, np.ones(7, np.float32)).epoch(0))
    assert batch.targets.sum(1) == pytest.approx(targets.image_weights[batch.images[:, 0, 0] // 30])


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    batches = Batches(TrainConfig(augment=NOTHING), faces(3), evenly(np.eye(7, dtype=np.float32)[:3]), np.ones(7, np.float32))
    assert [len(batch.images) for batch in batches.epoch(0)] == [3]


def test_teachers_have_their_share_in_the_targets() -> None:
    config = TrainConfig(
        distil=DistilConfig(weight=0.25), loss=LossConfig(mixup=0), augment=NOTHING, schedule=ScheduleConfig(batch=7)
    )
    images, targets = faces(7), np.full((7, 7), 1 / 7, np.float32)
    batch = next(Batches(config, images, evenly(targets), np.ones(7, np.float32), [StubModel()]).epoch(0))
    assert batch.targets == pytest.approx(0.75 / 7 + 0.25 * StubModel().predict(batch.images) / 1.0, abs=1e-3)


def test_labels_are_smoothed_and_soft_labels_follow_the_rows_kept(tmp_path: Path) -> None:
    split = Split(faces(3), np.array([0, 1, 2], np.int64))
    plain, counts = make_targets(TrainConfig(), split, np.array([0, 2]))
    assert counts.tolist() == [1, 1]
    assert plain[1] == pytest.approx(np.eye(7)[2] * 0.9 + 0.1 / 7, abs=1e-6)
    soft = np.eye(7, dtype=np.float32)[[6, 5, 4]]
    write_arrays(tmp_path / "soft.npz", {"probabilities": soft})
    config = TrainConfig(distil=DistilConfig(soft_labels=str(tmp_path / "soft.npz"), weight=1.0))
    assert make_targets(config, split, np.array([0, 2])).targets.argmax(1).tolist() == [6, 4]
    write_arrays(tmp_path / "soft.npz", {"probabilities": soft[:2]})
    with pytest.raises(DataError, match=r"\(3, 7\)"):
        make_targets(config, split, np.array([0, 2]))


def test_class_weights_favour_rare_classes_and_keep_the_mean() -> None:
    labels = np.array([0] * 90 + [1] * 10, np.int64)
    assert class_weights(labels, 0)[:2].tolist() == [1, 1]
    weights = class_weights(labels, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[2:].tolist() == [0] * 5


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = ScheduleConfig(learning_rate=0.1, warm_up=0.1)
    rates = [learning_rate(schedule, progress / 100) for progress in range(101)]
    assert rates[0] < 0.002
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert 8 <= int(np.argmax(rates)) <= 10
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_every_shipped_configuration_is_valid(repo: Path) -> None:
    paths = sorted((repo / "training/configs").glob("*.toml"))
    assert {path.stem for path in paths} >= {"shipped", "baseline", "quick"}
    for path in paths:
        assert load_config(path).name == path.stem


@pytest.mark.parametrize(
    "text",
    [
        "epochs = 3",
        "[schedule]\nepochs = 0",
        "[schedule]\nbatch = 'many'",
        "[model]\nkind = 'huge'",
        "[loss]\nmixup = 1.5",
        "[[[",
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"a\.toml"):
        load_config(tmp_path / "a.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(tmp_path / "b.toml")


def test_figures_agree_with_a_count_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    answers = np.eye(7)[[0, 0, 1, 1, 2, 2]]
    counts = confusion(answers, labels)
    assert counts[:3, :3].tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    figures = class_figures(counts)
    assert figures["angry"].precision == 1
    assert figures["angry"].recall == pytest.approx(2 / 3)
    assert figures["angry"].f1 == pytest.approx(0.8)
    assert figures["neutral"].support == 0
    assert macro_f1(figures) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)


def test_wilsons_interval_is_the_published_one() -> None:
    low, high = wilson(0.5, 100)
    assert low == pytest.approx(0.4038, abs=1e-4)
    assert high == pytest.approx(0.5962, abs=1e-4)
    assert wilson(1.0, 10).high == pytest.approx(1)
    assert wilson(0.0, 10).low == pytest.approx(0)


def test_the_area_below_the_roc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(3)
    scores, positive = np.round(random.random(60), 1), random.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert roc(scores, positive).area == pytest.approx(float(np.mean(pairs)))
    assert np.isnan(roc(scores, np.zeros(60, bool)).area)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.4, 2.5), st.integers(0, 99))
def test_the_fitted_temperature_undoes_another(temperature: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (3000, 7))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (random.random((3000, 1)) > true.cumsum(1)).sum(1).clip(0, 6)  # labels as likely as they say
    twisted = tempered(true, 1 / temperature)
    fitted = fitted_temperature(twisted, labels)
    assert fitted == pytest.approx(temperature, rel=0.15)
    assert cross_entropy(tempered(twisted, fitted), labels) <= cross_entropy(twisted, labels) + 1e-9
    assert calibration_error(tempered(twisted, fitted), labels) < 0.05


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_each_condition_changes_images_and_is_repeatable(name: str) -> None:
    images, change = faces(6), CONDITIONS[name][1]
    changed = change(images)
    assert changed.dtype == np.uint8
    assert changed.shape == images.shape
    assert (changed == change(images)).all()
    assert (changed != images).any((1, 2)).all()


def test_views_are_averaged() -> None:
    images = faces(3)
    assert np.allclose(flipped_mean(StubModel(), images), StubModel().predict(images), atol=1e-6)
    assert ten_crop_mean(StubModel(), images).shape == (3, 7)
    assert np.abs(ten_crop_mean(StubModel(), images) - StubModel().predict(images)).max() < 0.1


def test_an_evaluation_has_every_figure_and_a_page_that_needs_no_other_file() -> None:
    images = np.concatenate([faces(20) // 2, 255 - faces(20, 1) // 2])
    split = Split(images, np.array([4] * 18 + [0, 3] + [3] * 20, np.int64))
    evaluation = evaluate_model(StubModel(), 1.0, split, "made")
    metrics = evaluation.metrics
    assert metrics.accuracy == 0.95
    assert metrics.accuracy_flip == 0.95
    assert set(metrics.robustness) == set(CONDITIONS)
    assert metrics.robustness["washed_out"] < metrics.accuracy  # everything is bright, so everything is taken for happy
    assert metrics.classes["fear"].roc_area is None
    assert sorted(confident_errors(evaluation.probabilities, split.labels).tolist()) == [18, 19]
    assert "0.950" in classification_report(metrics)
    page = html_page(metrics, {"confusion": b"png"})
    assert "95.0%" in page
    assert "src='data:image/png;base64,cG5n'" in page
    assert "http" not in page


def test_calibration_is_told_with_and_without_the_temperature() -> None:
    split = Split(faces(30), np.array([3, 4] * 15, np.int64))
    plain, warm = (evaluate_model(StubModel(), temperature, split, "made").metrics.calibration for temperature in (1.0, 2.0))
    assert plain.error_before == plain.error == warm.error
    assert warm.error_before != warm.error


def test_nothing_to_measure_on_is_an_error() -> None:
    with pytest.raises(DataError):
        evaluate_model(StubModel(), 1.0, Split(np.empty((0, 48, 48), np.uint8), np.empty(0, np.int64)), "none")
