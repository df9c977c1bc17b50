"""Tiny ONNX models: a detector that finds blue rectangles of 94 x 28, readers that say what the pixels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (128, 224)  # of the detector's input
PLATE = (28, 94)
STRIDE = 2


def save(
    path: Path,
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    shape: list[Any],
    output: list[Any],
    half: bool = False,
) -> Path:
    """Write a model from "images" of `shape`, or in float16 from "halves", to "output"; texts are free axes."""
    given = ("halves", TensorProto.FLOAT16) if half else ("images", TensorProto.FLOAT)
    if half:
        nodes = [helper.make_node("Cast", ["halves"], ["images"], to=TensorProto.FLOAT), *nodes]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*given, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def detector(path: Path, layout: str = "yolo-face", batch: Any = "batch", size: tuple[Any, Any] = SIZE) -> Path:
    """A cell looks at 28 x 94 pixels and scores how blue they are (RGB, 0 to 1). Its corners, which it gives in the
    order TR TL BL BR, lean a tenth of its width to the right."""
    h, w = PLATE
    high, wide = ((n - m) // STRIDE + 1 for n, m in zip(SIZE, PLATE, strict=True))
    x = (STRIDE * np.arange(wide) + w / 2)[None].repeat(high, 0).ravel()
    y = (STRIDE * np.arange(high) + h / 2)[:, None].repeat(wide, 1).ravel()
    box = np.stack([x, y, np.full_like(x, w), np.full_like(x, h)], 1)
    left, top, right, bottom, lean = x - w / 2, y - h / 2, x + w / 2, y + h / 2, w / 10
    points = np.stack([right + lean, top, left + lean, top, left, bottom, right, bottom], 1)
    one = np.ones((len(x), 1))
    parts: dict[str, list[Any]] = {
        "yolo": [box, "score", one],
        "yolo-face": [box, "score", points, one],
        "yolov8": [box, "score"],
        "yolov8-pose": [box, "score", points],
        "end-to-end": [np.stack([left, top, right, bottom], 1), "score", 0 * one],
    }
    constants: dict[str, np.ndarray] = {
        "blueness": np.array([-1.0, 0.0, 1.0], np.float32).reshape(1, 3, 1, 1),
        "rows": np.array([0, -1, 1], np.int64),
        "zero": np.array(0, np.float32),
        "nil": np.array(0, np.float32),
        "full": np.array(1, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "blueness"], ["blue"]),
        helper.make_node("AveragePool", ["blue"], ["mean"], kernel_shape=list(PLATE), strides=[STRIDE, STRIDE]),
        helper.make_node("Clip", ["mean", "nil", "full"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "rows"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["none"]),  # the batch, for the rest of a row
    ]
    names = []
    for i, part in enumerate(parts[layout]):
        if isinstance(part, str):
            names.append(part)
            continue
        constants[f"part{i}"] = part.astype(np.float32)[None]
        nodes.append(helper.make_node("Add", ["none", f"part{i}"], [f"rows{i}"]))
        names.append(f"rows{i}")
    turned = layout.startswith("yolov8")
    nodes.append(helper.make_node("Concat", names, ["values" if turned else "output"], axis=2))
    if turned:
        nodes.append(helper.make_node("Transpose", ["values"], ["output"], perm=[0, 2, 1]))
    return save(path, nodes, constants, [batch, 3, *size], [batch, None, None])


def reader(
    path: Path, classes: int = 4, axes: str = "NTC", batch: Any = "batch", channels: int = 3, half: bool = False
) -> Path:
    """Reads plates of 8 x 40: time step t of 5 looks at columns 8 t to 8 t + 7. Their mean, 0 to 1, times ten is the
    class it is surest of."""
    constants: dict[str, np.ndarray] = {
        "mean": np.full((1, channels, 1, 1), 1 / channels, np.float32),
        "rows": np.array([0, -1, 1], np.int64),
        "ten": np.array(10, np.float32),
        "classes": np.arange(classes, dtype=np.float32).reshape(1, 1, classes),
        "sure": np.array(-20, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "mean"], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["steps"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["steps", "rows"], ["row"]),
        helper.make_node("Mul", ["row", "ten"], ["number"]),
        helper.make_node("Sub", ["number", "classes"], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["far"]),
        helper.make_node("Mul", ["far", "sure"], ["logits"]),
        helper.make_node("Transpose", ["logits"], ["output"], perm=["NTC".index(axis) for axis in axes]),
    ]
    return save(path, nodes, constants, [batch, channels, 8, 40], [None, None, None], half)
