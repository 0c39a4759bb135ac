"""Make a run of a served detector, so that training can go on from it.

    python -m moodline.training.detector.unfold --model models/face-small --images faces-unlabelled.tar --out runs/face-small

Folding put normalisation and shortcuts into the convolutions. Here they are taken out again: the shortcut's one is taken off the
kernel, and normalisation gets the mean and the spread of the convolution on photos, undone by its own gain and offset. So the
run answers what the served one answers, and a training that normalises by its batches begins there, too.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from moodline.services.detector.own import MANIFEST, load_manifest
from moodline.shared.errors import ModelError
from moodline.training.detector.config import DetectorTraining
from moodline.training.detector.graph import kernel_shape, places
from moodline.training.detector.labels import decode_photo, read_photos
from moodline.training.detector.network import EPSILON, INPUT_SCALE, Array, answers, has_shortcut
from moodline.training.detector.photos import is_held_out
from moodline.training.detector.spec import SPECS, Spec
from moodline.training.detector.train import CHECKPOINT, CONFIG, SERVED
from moodline.training.runs import write_arrays, write_json

_PHOTOS: Final = 192
_SIDE_PX: Final = 320


def weights_of(path: Path, spec: Spec) -> dict[str, Array]:
    """Return a served network's folded weights by name, `NAME.weight` and `NAME.bias`.

    Raises:
        ModelError: the file holds another network.
    """
    import onnx
    from onnx import numpy_helper

    try:
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
        found = {f"{place.name}.{part}": held[f"{place.name}.{part}"] for place in places(spec) for part in ("weight", "bias")}
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is no such network: {error}") from None
    if any(found[f"{place.name}.weight"].shape != kernel_shape(place) for place in places(spec)):
        raise ModelError(f"{path} is another network: its convolutions have other shapes")
    return found


def unfolded(spec: Spec, weights: dict[str, Array], pictures: Any) -> dict[str, Any]:
    """Return the state of a network in training that answers as the served one does.

    Args:
        spec: The network.
        weights: As `weights_of` returns them.
        pictures: uint8 tensor (N, 3, H, W), blue-green-red, on which means and spreads are measured; sides are multiples of 32.
    """
    import torch

    state: dict[str, Any] = {}
    for index, place in enumerate(places(spec)):
        kernel = weights[f"{place.name}.weight"].astype(np.float64) / (INPUT_SCALE if index == 0 else 1.0)
        bias = torch.from_numpy(weights[f"{place.name}.bias"].astype(np.float32))
        if has_shortcut(place):
            middle = place.conv.kernel // 2
            for channel in range(place.conv.filters):
                kernel[channel, 0 if place.conv.depthwise else channel, middle, middle] -= 1
        state[f"{place.name}.kernel"] = torch.from_numpy(kernel.astype(np.float32))
        if place.relu:
            none, one = torch.zeros_like(bias), torch.ones_like(bias)
            parts = {"gamma": one, "beta": bias, "mean": none, "variance": one - EPSILON}
            state |= {f"{place.name}.{part}": value for part, value in parts.items()}
        else:
            state[f"{place.name}.bias"] = bias
    seen: dict[str, tuple[Any, Any]] = {}

    def observe(name: str, values: Any) -> None:
        seen[name] = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)

    with torch.no_grad():
        answers(spec, state, pictures, training=False, observe=observe)
        for name, (mean, variance) in seen.items():
            state[f"{name}.beta"] += mean
            state[f"{name}.mean"], state[f"{name}.variance"] = mean, variance
            state[f"{name}.gamma"] = torch.sqrt(variance + EPSILON)
    return state


def middle_parts(photos: Iterable[tuple[str, bytes]], count: int, side_px: int) -> Any:
    """Return the middles of photos that training may see, uint8 tensor (N, 3, side, side); smaller photos are black around."""
    import torch

    parts = []
    for name, data in photos:
        if is_held_out(name):
            continue
        image = decode_photo(data, name)
        top, left = (max(0, (length - side_px) // 2) for length in image.shape[:2])
        cut = image[top : top + side_px, left : left + side_px]
        part = np.zeros((side_px, side_px, 3), np.uint8)
        part[: cut.shape[0], : cut.shape[1]] = cut
        parts.append(part.transpose(2, 0, 1))
        if len(parts) == count:
            break
    return torch.from_numpy(np.stack(parts))


def unfold(model: Path, network: str, images: Path, out: Path) -> None:
    """Write the run. Raises `ModelError` where the model is another network."""
    manifest, spec = load_manifest(model), SPECS[network]
    pictures = middle_parts(read_photos(images), _PHOTOS, _SIDE_PX)
    state = unfolded(spec, weights_of(model / Path(manifest.weights).name, spec), pictures)
    arrays = {f"{SERVED}{name}": value.numpy() for name, value in state.items()}
    arrays["log"] = np.frombuffer(b"[]", np.uint8)
    arrays["progress"] = np.array([0, 0])
    write_json(out / CONFIG, msgspec.to_builtins(DetectorTraining(network=network)))
    write_arrays(out / CHECKPOINT, arrays)


def main() -> None:
    """Read the command line and unfold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help=f"folder with {MANIFEST}")
    parser.add_argument("--network", choices=sorted(SPECS), default="deep")
    parser.add_argument("--images", type=Path, required=True, help="tar archive of photos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    arguments = parser.parse_args()
    unfold(arguments.model, arguments.network, arguments.images, arguments.out)
    print(f"{arguments.out} answers as {arguments.model} does")


if __name__ == "__main__":
    main()
