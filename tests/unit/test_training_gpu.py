"""The training on one device: rehearsed on a CPU with a few images."""

import json
from pathlib import Path

import numpy as np
import pytest

from moodline.shared.errors import DataError
from moodline.training.architecture import ARCHITECTURES
from moodline.training.import_torch import named_weights
from moodline.training.runs import load_arrays

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from moodline.training import gpu  # noqa: E402  # it has nothing to do without PyTorch


def write_pack(path: Path, count: int = 64) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 48, 48), np.uint8)
    shrunk = np.diff(images, axis=2, prepend=np.uint8(0))
    labels = rng.integers(0, 7, count)
    weights = np.ones(count, np.float32)
    targets = np.eye(7, dtype=np.float32)[labels]
    np.savez_compressed(path, images=shrunk, targets=targets, weights=weights, measured=shrunk, majority=labels, labels=labels)
    return path


def test_a_pack_gives_the_images_back_bit_for_bit(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "pack.npz")
    packed = gpu.unpack(path, 1.0, "cpu")
    original = np.random.default_rng(0).integers(0, 256, (64, 48, 48), np.uint8)
    assert (packed.measured.numpy() == original).all()
    assert sorted(image.tobytes() for image in packed.images.numpy()) == sorted(image.tobytes() for image in original)
    np.savez(tmp_path / "other.npz", images=original)
    with pytest.raises(DataError, match=r"gpu pack"):
        gpu.unpack(tmp_path / "other.npz", 1.0, "cpu")


def test_changed_images_stay_images_and_the_seed_decides() -> None:
    images = torch.randint(0, 256, (16, 48, 48), dtype=torch.uint8)
    one, same, other = (gpu.changed(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (16, 48, 48)
    assert 0 <= float(one.min()) <= float(one.max()) <= 255
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_run_is_made_whole_taken_over_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TEACHER", ARCHITECTURES["tiny"])
    monkeypatch.setattr(gpu, "STUDENTS", ("tiny",))
    path, out = write_pack(tmp_path / "pack.npz"), tmp_path / "out"
    plan = gpu.Plan(minutes=0.001, teachers=2, batch=32)
    lines = gpu.train(path, out, plan)
    assert [line["name"] for line in lines] == ["teacher-1", "teacher-2", "tiny"]
    state = torch.load(out / "tiny.pt", weights_only=True)
    weights = named_weights({name: value.float().numpy() for name, value in state.items()}, ARCHITECTURES["tiny"])
    assert all(np.isfinite(value).all() for value in weights.values())
    soft = load_arrays(out / "soft-labels.npz")["probabilities"]
    assert soft.sum(1) == pytest.approx(np.ones(64), abs=1e-2)
    written = {file.name: file.stat().st_mtime_ns for file in out.glob("*.pt")}
    (out / "teacher-2.json").write_text(json.dumps({"name": "teacher-2", "kept": True}))
    again = gpu.train(path, out, plan)
    assert again[1] == {"name": "teacher-2", "kept": True}
    assert {file.name: file.stat().st_mtime_ns for file in out.glob("*.pt")} == written
