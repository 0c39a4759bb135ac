import numpy as np

from moodline.services.classifier.mirror import MirroredModel, views_of, with_views
from moodline.services.classifier.model import Crops, Probabilities
from moodline.services.classifier.stage import ClassifierStage
from moodline.shared.metrics import Metrics
from moodline.shared.settings import ClassifierSettings
from tests.unit.test_classifier_stage import StubModel, make_faces, process


class SidedModel:
    """Answers with odd shares that depend on each crop's left edge, so a crop and its mirror image get other answers."""

    name = "sided"

    def __init__(self) -> None:
        self.closed = False

    def predict(self, crops: Crops) -> Probabilities:
        logits = crops[:, :7, 0].astype(np.float32) / 37
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed = True


def make_crops(count: int) -> Crops:
    return np.random.default_rng(count).integers(0, 256, (count, 48, 48), np.uint8)


def test_a_face_and_its_mirror_image_get_the_mean_of_both_answers_bit_for_bit() -> None:
    crops, inner = make_crops(50), SidedModel()
    model = MirroredModel(inner)
    answer, mirrored = model.predict(crops), model.predict(crops[:, :, ::-1])
    assert answer.dtype == np.float32
    assert answer.tobytes() == mirrored.tobytes()
    plain, flipped = inner.predict(crops), inner.predict(crops[:, :, ::-1])
    assert np.abs(plain - flipped).max() > 0.1
    assert np.allclose(answer, (plain.astype(float) + flipped) / 2, atol=1e-6)
    assert np.abs(answer.sum(1) - 1).max() < 1e-5


def test_an_answer_depends_on_no_neighbour() -> None:
    crops, model = make_crops(20), MirroredModel(SidedModel())
    alone = np.concatenate([model.predict(crops[index : index + 1]) for index in range(20)])
    assert model.predict(crops).tobytes() == alone.tobytes()
    assert model.predict(crops[:0]).shape == (0, 7)


def test_a_manifest_decides_how_many_views_are_taken() -> None:
    inner = SidedModel()
    assert with_views(inner, "single") is inner
    model = with_views(inner, "mirror")
    assert (model.name, views_of(model), views_of(inner)) == ("sided", 2, 1)
    model.close()
    assert inner.closed


def test_the_stage_counts_what_goes_through_the_network() -> None:
    metrics, inner = Metrics(), StubModel()
    stage = ClassifierStage(MirroredModel(inner), ClassifierSettings(batch_size=8), metrics)
    process([make_faces(0, [1, 2, 3, 4, 5])], stage)
    assert inner.calls == [10]
    value = metrics.registry.get_sample_value
    assert value("moodline_model_batch_fill_ratio_sum") == 10 / 16
    assert value("moodline_faces_total", {"worker": "classifier"}) == 5
