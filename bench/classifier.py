"""What runs the classifier's network fastest on this CPU, and whether it still says the same. Run from the checkout:

    python -m bench.classifier [MODEL…] [--data fer2013] [--rounds 5]

MODEL is an installed model's name or an artefact's folder. Each engine, precision and number of threads runs in a process of its
own, one after the other on the same crops: import and load time, memory, crops/s (wall, and per second of CPU time) and median
latency by batch size. With --data (image folder or fer2013.csv), accuracy is measured on its validation part and int8 is
calibrated on 512 images of its training part; without, crops are made up and only agreement is reported.

Engines: TensorFlow float32; OpenVINO float32, bfloat16 (where the processor has it) and int8; ONNX Runtime float32 and int8. The
last two, and int8, need the packages onnx and onnxruntime, which Moodline itself does not use; what is missing is left out.
"""

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement

from moodline.services.classifier.artefact import Artefact, load_artefact
from moodline.services.classifier.factory import model_folder
from moodline.services.classifier.mirror import with_views

BATCHES = (1, 8, 32, 64)
SPEED_CROPS = 256
CALIBRATION_CROPS = 512
ENGINES = (
    "tensorflow float32",
    "openvino float32",
    "openvino bfloat16",
    "openvino int8",
    "onnxruntime float32",
    "onnxruntime int8",
)
PACKAGES = {"tensorflow": "tensorflow", "openvino": "openvino", "onnxruntime": "onnxruntime"}
Predict = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["fer-2-small"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(**json.loads(options.child))))
        return
    with tempfile.TemporaryDirectory(prefix="moodline-bench-") as folder:
        crops = Path(folder) / "crops.npz"
        np.savez(crops, **load_crops(options.data))
        for name in options.models:
            report(name, list(run_all(str(model_folder(name)), crops, options.rounds, options.threads)))
    print(f"\ninstalled, with what each needs beyond Moodline's core: {sizes()}")


def load_crops(data: Path | None) -> dict[str, np.ndarray]:
    """Return `images`, `labels` (empty where there are none) and `calibration`."""
    if data is not None:
        from moodline.training.data import load_data

        dataset = load_data(data)
        validation, train = dataset.part("validation"), dataset.part("train")
        chosen = np.random.default_rng(0).permutation(len(train.images))[:CALIBRATION_CROPS]
        return {"images": validation.images, "labels": validation.labels, "calibration": train.images[chosen]}
    import cv2

    random = np.random.default_rng(0)
    small = random.integers(0, 256, (2 * CALIBRATION_CROPS, 6, 6), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (48, 48), interpolation=cv2.INTER_CUBIC) for image in small])
    return {"images": images[::2], "labels": np.empty(0, np.int64), "calibration": images[1::2]}


def run_all(model: str, crops: Path, rounds: int, threads: list[int]) -> Iterator[dict[str, Any]]:
    for count in threads:
        for engine in ENGINES:
            print(f"{Path(model).name}: {engine}, {count} threads …", file=sys.stderr, flush=True)
            job = {"engine": engine, "model": model, "crops": str(crops), "threads": count, "rounds": rounds}
            done = subprocess.run(
                [sys.executable, "-m", "bench.classifier", "--child", json.dumps(job)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
                print(f"  left out: {reason}", file=sys.stderr)
            else:
                yield json.loads(done.stdout.splitlines()[-1])


def measure(engine: str, model: str, crops: str, threads: int, rounds: int) -> dict[str, Any]:
    """Measure one engine, in this process."""
    base_mib, started_s = rss_mib(), time.perf_counter()
    artefact = load_artefact(Path(model))
    with np.load(crops) as stored:
        images, labels, calibration = (stored[name] for name in ("images", "labels", "calibration"))
    opened = {8: open_served(engine, artefact, 8, threads, calibration)}
    load_s = time.perf_counter() - started_s
    opened[8](images[:64])
    memory_mib = rss_mib() - base_mib
    speeds = {}
    for batch in BATCHES:
        predict = opened.get(batch) or open_served(engine, artefact, batch, threads, calibration)
        predict(images[:SPEED_CROPS])
        runs = [timed(predict, images[:SPEED_CROPS]) for _ in range(rounds)]
        single = [timed(predict, images[at : at + batch])[0] for at in range(0, SPEED_CROPS, batch)]
        wall_s, cpu_s = (min(run[kind] for run in runs) for kind in (0, 1))
        speeds[batch] = [SPEED_CROPS / wall_s, SPEED_CROPS / cpu_s, 1000 * statistics.median(single)]
    answers = opened[8](images)
    stable = all(np.array_equal(opened[8](images[order])[np.argsort(order)], answers[: len(order)]) for order in orders())
    reference = Path(crops).with_suffix(f".{Path(model).name}.npy")
    if engine == ENGINES[0] and not reference.exists():
        np.save(reference, answers)
    exact = np.load(reference) if reference.exists() else answers
    return {
        "engine": engine,
        "threads": threads,
        "load_s": load_s,
        "memory_mib": memory_mib,
        "speeds": speeds,
        "accuracy": float((answers.argmax(1) == labels).mean()) if len(labels) else None,
        "agreement": float((answers.argmax(1) == exact.argmax(1)).mean()),
        "difference": float(np.abs(answers - exact).max()),
        "stable": stable,
    }


def orders() -> list[np.ndarray]:
    return [np.random.default_rng(seed).permutation(100) for seed in range(5)]


def timed(predict: Predict, crops: np.ndarray) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    predict(crops)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def rss_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def open_served(engine: str, artefact: Artefact, batch: int, threads: int, calibration: np.ndarray) -> Predict:
    """Return what answers as the service does: with as many views of a face as the model wants."""
    return with_views(_Engine(open_engine(engine, artefact, batch, threads, calibration)), artefact.manifest.views).predict


class _Engine:
    """An engine as a `Model`."""

    name = "bench"

    def __init__(self, predict: Predict) -> None:
        self.predict = predict

    def close(self) -> None:
        """Nothing to release."""


def open_engine(engine: str, artefact: Artefact, batch: int, threads: int, calibration: np.ndarray) -> Predict:
    kind, precision = engine.split()
    if kind == "tensorflow":
        from moodline.services.classifier.keras_model import KerasModel

        return KerasModel(artefact, batch, threads).predict
    if kind == "openvino" and precision != "int8":
        from moodline.services.classifier.openvino_model import OpenVinoModel

        return OpenVinoModel(artefact, batch, threads, precision).predict
    model = to_onnx(artefact, batch)
    if precision == "int8":
        model = to_int8(model, batch, calibration)
    return padded(batch, open_openvino(model, threads) if kind == "openvino" else open_onnxruntime(model, threads))


def padded(batch: int, run: Predict) -> Predict:
    def predict(crops: np.ndarray) -> np.ndarray:
        answers = []
        for at in range(0, len(crops), batch):
            part = crops[at : at + batch]
            missing = batch - len(part)
            answers.append(run(np.pad(part, ((0, missing), (0, 0), (0, 0))))[: len(part)])
        return np.concatenate(answers)

    return predict


def open_onnxruntime(model: bytes, threads: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda crops: session.run(None, {"crops": crops})[0]


def open_openvino(model: bytes, threads: int) -> Predict:
    from moodline.shared.openvino_runtime import open_core

    core = open_core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    return lambda crops: request.infer({0: crops})[0].copy()


def to_onnx(artefact: Artefact, batch: int) -> bytes:
    """Return a plain stack of convolutions, as `moodline.training.export` writes them, as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    arrays: list[Any] = []
    weights = iter(artefact.weights)

    def node(operator: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        names = []
        for each in inputs:
            if isinstance(each, np.ndarray):
                arrays.append(numpy_helper.from_array(np.ascontiguousarray(each), f"array{len(arrays)}"))
                names.append(arrays[-1].name)
            else:
                names.append(each)
        nodes.append(helper.make_node(operator, names, [f"value{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    value = node("Reshape", node("Cast", "crops", to=TensorProto.FLOAT), np.array([batch, 1, 48, 48]))
    for layer in artefact.manifest.architecture["layers"]:
        kind, config = layer["class_name"], layer["config"]
        if kind == "Rescaling":
            value = node("Mul", value, np.array(config["scale"], np.float32))
            value = node("Add", value, np.array(config["offset"], np.float32))
        elif kind == "Conv2D":
            value = node("Conv", value, next(weights).transpose(3, 2, 0, 1), next(weights), pads=[1, 1, 1, 1])
            value = node("Relu", value)
        elif kind == "MaxPooling2D":
            value = node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "GlobalAveragePooling2D":
            value = node("Flatten", node("GlobalAveragePool", value))
        elif kind == "Dense":
            value = node("Softmax", node("Gemm", value, next(weights), next(weights)), axis=1)
        elif kind not in ("InputLayer", "Reshape"):
            raise SystemExit(f"the layer {kind} is not built here")
    taken = helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch, 48, 48])
    answered = helper.make_tensor_value_info(value, TensorProto.FLOAT, [batch, 7])
    graph = helper.make_graph(nodes, "classifier", [taken], [answered], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def to_int8(model: bytes, batch: int, calibration: np.ndarray) -> bytes:
    """Return the model with convolutions of 8-bit integers, the ranges of values taken from `calibration`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # comes without types
        def __init__(self) -> None:
            self.starts = iter(range(0, len(calibration) - batch + 1, batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            at = next(self.starts, None)
            return None if at is None else {"crops": calibration[at : at + batch]}

    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        paths[0].write_bytes(model)
        quantize_static(
            *paths,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "MaxPool", "GlobalAveragePool", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return paths[1].read_bytes()


def report(name: str, results: list[dict[str, Any]]) -> None:
    base = {result["threads"]: result["speeds"]["8"] for result in results if result["engine"] == ENGINES[0]}
    print(f"\n{name}")
    columns = ["engine", "threads", *(f"crops/s at {batch}" for batch in BATCHES), "per CPU s at 8", "to TensorFlow"]
    columns += ["p50 at 8, ms", "load, s", "memory, MiB", "accuracy", "agrees", "differs by", "in any order"]
    print("| " + " | ".join(columns) + " |")
    print("| --- " + "| ---: " * (len(columns) - 1) + "|")
    for result in results:
        speeds = result["speeds"]
        ratio = f"{speeds['8'][1] / base[result['threads']][1]:.1f}" if result["threads"] in base else "-"
        accuracy = "-" if result["accuracy"] is None else f"{100 * result['accuracy']:.2f}%"
        rates = " | ".join(f"{speeds[str(batch)][0]:,.0f}" for batch in BATCHES)
        print(
            f"| {result['engine']} | {result['threads']} | {rates} | {speeds['8'][1]:,.0f} | {ratio} | {speeds['8'][2]:.2f} "
            f"| {result['load_s']:.1f} | {result['memory_mib']:.0f} | {accuracy} | {100 * result['agreement']:.2f}% "
            f"| {result['difference']:.4f} | {'the same' if result['stable'] else 'CHANGES'} |"
        )


def sizes() -> str:
    core = closure(["moodline"])
    found = []
    for package in PACKAGES.values():
        try:
            needed = closure([package]) - core
        except importlib.metadata.PackageNotFoundError:
            continue
        total = sum(size_of(name) for name in needed)
        found.append(f"{package} {total / 1e6:.0f} MB ({len(needed)} packages)")
    return ", ".join(found)


def closure(names: list[str]) -> set[str]:
    """Return packages and all that they need, without extras."""
    known: set[str] = set()
    waiting = [name.lower() for name in names]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower())
    return known


def size_of(name: str) -> int:
    files = importlib.metadata.files(name) or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    main()
