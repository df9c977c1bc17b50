"""`onnx.detector`: frames in, boxes and corners of a YOLO-style model out."""

from __future__ import annotations

import torch
from torch import Tensor

from lprf.boxes import best_of_each, clipped, nms
from lprf.context import Context
from lprf.data import Detections, Frames
from lprf.onnx_model import OnnxModel
from lprf.sampling import sample_boxes
from lprf_onnx.network import Network
from lprf_onnx.params import DetectorParams

CANDIDATES = 1000  # boxes a frame that suppression looks at
_LAYOUTS = {"yolo": 5, "yolo-face": 13, "yolov8": 4, "yolov8-pose": 12, "end-to-end": 6}  # values beside the classes


class OnnxDetector:
    """Finds plates in frames of one size, each frame on its own, by one look at the whole of it."""

    def __init__(self, params: DetectorParams, context: Context):
        self.params = params
        where = context.node or "onnx.detector"
        self.net = Network(OnnxModel(params.model, context.device, where), params, context, where)
        self.net.reads(params.colours, params.mean, params.scale)
        plates = list(range(params.classes)) if params.plates is None else params.plates
        self.plates = torch.tensor(plates, device=context.device)
        self.transposed = params.layout.startswith("yolov8") if params.transposed is None else params.transposed
        self.net.axes = "NCT" if self.transposed else "NTC"
        self.points = list(params.corners)
        self._check(self.net.tried())

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Detections:
        """Find plates: boxes inside the frame, by frame, then from the best down."""
        images = frames.images
        inputs, factors, shift = self._fitted(images)
        boxes, scores, classes, corners = self._taken_apart(self.net(inputs))
        frame, row = (scores >= self.params.threshold).nonzero().unbind(1)
        score = scores[frame, row].clamp(0, 1)
        best = best_of_each(score, frame, CANDIDATES)
        frame, row, score = frame[best], row[best], score[best]
        box = (boxes[frame, row] - shift.repeat(2)) / factors.repeat(2)
        point = None if corners is None else (corners[frame, row] - shift) / factors
        box, inside = clipped(box, images)
        if self.params.layout != "end-to-end":
            inside = inside[nms(box[inside], score[inside], frame[inside], self.params.nms)]
        inside = inside[best_of_each(score[inside], frame[inside], self.params.max_plates)]
        kind = classes[frame, row]
        return Detections(
            frames,
            frame[inside],
            box[inside],
            score[inside],
            None if point is None else point[inside],
            {"class": kind[inside]},
        )

    def _fitted(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames as the network's input [B, 3, h, w]; factors and shift (x, y) from a frame's pixels to the input's."""
        high, wide = self.net.size
        height, width = images.shape[1:3]
        h, w, top, left = high, wide, 0, 0
        if self.params.resize != "stretch":
            ratio = min(high / height, wide / width)
            h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
            if self.params.resize == "centre":
                top, left = (high - h) // 2, (wide - w) // 2
        rows = torch.arange(len(images), device=images.device)
        whole = torch.tensor([[0.0, 0.0, width, height]], device=images.device).expand(len(images), 4)
        resized = sample_boxes(images, rows, whole, (h, w), "linear")
        inputs = resized.new_full((len(images), 3, high, wide), self.params.ground)
        inputs[:, :, top : top + h, left : left + w] = resized
        factors = torch.tensor([w / width, h / height], device=images.device)
        return inputs, factors, torch.tensor([left, top], device=images.device, dtype=torch.float32)

    def _taken_apart(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Boxes [B, N, 4], scores [B, N], classes [B, N], corners [B, N, 4, 2] or None, in pixels of the input."""
        layout, count = self.params.layout, self.params.classes
        if layout == "end-to-end":
            kinds = rows[..., 5].round().long()
            return rows[..., :4], rows[..., 4] * torch.isin(kinds, self.plates), kinds, None
        at = 4
        objectness: Tensor | float = 1.0
        if not layout.startswith("yolov8"):
            objectness, at = rows[..., 4], 5
        corners = None
        if layout == "yolo-face":
            corners, at = rows[..., at : at + 8].unflatten(-1, (4, 2)), at + 8
        best, which = rows[..., at : at + count][..., self.plates].max(-1)
        if layout == "yolov8-pose":
            left = rows[..., at + count :]
            corners = left.unflatten(-1, (4, left.shape[-1] // 4))[..., :2]
        if corners is not None:
            corners = corners[..., self.points, :]
        half = rows[..., 2:4] / 2
        boxes = torch.cat([rows[..., :2] - half, rows[..., :2] + half], -1)
        return boxes, best * objectness, self.plates[which], corners

    def _check(self, output: Tensor) -> None:
        """Raise LprfError where the output is not of the layout that was declared."""
        params, (batch, boxes, values) = self.params, output.shape
        if values not in _values(params.layout, params.classes):
            shape = (batch, values, boxes) if self.transposed else (batch, boxes, values)
            wanted = " or ".join(map(str, _values(params.layout, params.classes)))
            form = f"[batch, {wanted}, boxes]" if self.transposed else f"[batch, boxes, {wanted}]"
            classes = f" with {params.classes} class{'es' * (params.classes > 1)}"
            raise self.net.wrong(
                f"`layout: {params.layout}`{classes if params.layout != 'end-to-end' else ''} is {form}, "
                f"the output '{self.net.model.outputs[self.net.output].name}' is {list(shape)}; {_hint(shape)}"
            )
        _, scores, _, _ = self._taken_apart(output)
        if scores.numel() and not (float(scores.min()) >= -0.01 and float(scores.max()) <= 1.01):
            raise self.net.wrong(
                f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g} are no probabilities: another "
                f"`layout`, or the model was exported without its last step"
            )


def _values(layout: str, classes: int) -> list[int]:
    """How many values a box has."""
    if layout == "end-to-end":
        return [6]
    points = [0, 4] if layout == "yolov8-pose" else [0]  # a visibility beside each of the points
    return [_LAYOUTS[layout] + classes + more for more in points]


def _hint(shape: tuple[int, int, int]) -> str:
    """What such an output may be."""
    transposed = shape[1] < shape[2]
    values = min(shape[1:])
    likely = []
    for layout in _LAYOUTS:
        found = next((count for count in range(1, 101) if values in _values(layout, count)), None)
        if found is not None:
            turned = "" if layout.startswith("yolov8") == transposed else f", transposed: {str(transposed).lower()}"
            classes = "" if layout == "end-to-end" else f" with `classes: {found}`"
            likely.append(f"`layout: {layout}{turned}`{classes}")
    return f"it may be {', or '.join(likely)}" if likely else "no layout has so few values a box"
