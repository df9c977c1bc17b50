"""What both components have in common: a model whose input is what the recipe says it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lprf.context import Context
from lprf.errors import LprfError
from lprf.onnx_model import OnnxModel
from lprf_onnx.params import Colours, Mean, ModelParams, Scale

CHUNK = 64  # pictures at a time of a model that takes any number

_TYPES = {"float": torch.float32, "float16": torch.float16}
_GREY = (0.114, 0.587, 0.299)  # of blue, green and red: ITU-R BT.601


class Network:
    """A model of pictures: float [n, 3, h, w], BGR, 0 to 255, go in; one of its outputs comes out, float32 [n, T, C].

    axes: in what order the model gives N pictures, T rows (boxes, time steps) and C values of each.
    Raises LprfError where the model is not as the recipe says, naming both.
    """

    def __init__(self, model: OnnxModel, params: ModelParams, context: Context, where: str):
        self.model, self.where, self.batch = model, where, params.batch
        self.axes = "NTC"
        self.device = context.device
        if len(model.inputs) != 1:
            several = ", ".join(value.name for value in model.inputs)
            raise self.wrong(
                f"the model has {len(model.inputs)} inputs ({several}); one picture is all it can be given"
            )
        given = model.inputs[0]
        if given.type not in _TYPES or len(given.shape) != 4:
            raise self.wrong(
                f"the input '{given.name}' is {given.type} {given}; export the model with a floating input "
                f"[batch, channels, height, width]"
            )
        self.dtype = _TYPES[given.type]
        names = [value.name for value in model.outputs]
        if params.output is not None and params.output not in names:
            raise self.wrong(f"the model has no output '{params.output}'; `output` may be {', '.join(names)}")
        self.output = names.index(params.output) if params.output is not None else 0
        self._check_batch(given.shape[0])
        self.size = self._size(params.size, given.shape[2:])

    def reads(self, colours: Colours, mean: Mean, scale: Scale) -> None:
        """Say how pictures are normalised."""
        channels, has = (1 if colours == "grey" else 3), self.model.inputs[0].shape[1]
        if has is not None and has != channels:
            last = self.model.inputs[0].shape[3]
            hint = "export it with the channels first" if last in (1, 3) and has > 4 else "see `colours`"
            raise self.wrong(f"`colours: {colours}` is {channels} channels, the model's input has {has}; {hint}")
        self.colours = colours
        self.channels = channels
        self.mean, self.scale = (
            torch.tensor(x, device=self.device, dtype=torch.float32).reshape(-1, 1, 1) for x in (mean, scale)
        )
        if channels == 1 and max(len(self.mean), len(self.scale)) > 1:
            raise self.wrong("`colours: grey` has one channel; `mean` and `scale` must be one number each")

    def __call__(self, images: Tensor) -> Tensor:
        if self.colours == "RGB":
            images = images.flip(1)
        elif self.colours == "grey":
            weights = torch.tensor(_GREY, device=images.device).view(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
        images = ((images - self.mean) / self.scale).to(self.dtype)
        parts = [self._run(part) for part in images.split(self.batch or CHUNK)]
        return torch.cat(parts)

    def tried(self) -> Tensor:
        """What it gives for a black picture (as many as its batch): its shape is the truth, whatever the file says."""
        return self(torch.zeros(self.batch or 1, 3, *self.size, device=self.device))

    def wrong(self, message: str) -> LprfError:
        return LprfError(f"{self.where} ({self.model.path}): {message}")

    def _run(self, images: Tensor) -> Tensor:
        n = len(images)
        if self.batch is not None and n < self.batch:  # filled up, and the rest thrown away
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.batch - n))
        result = self.model(images)[self.output].float()
        if result.ndim != 3:
            name = self.model.outputs[self.output].name
            raise self.wrong(f"the output '{name}' is {list(result.shape)}, which has not three axes; see `output`")
        return result.permute([self.axes.index(axis) for axis in "NTC"])[:n]

    def _check_batch(self, fixed: int | None) -> None:
        if fixed is not None and self.batch is None:
            raise self.wrong(
                f"the model takes batches of {fixed} and no other: say `batch: {fixed}`, or export it with a dynamic "
                f"batch, which is quicker"
            )
        if fixed is None and self.batch is not None:
            raise self.wrong(f"`batch: {self.batch}`, but the model takes any number: leave `batch` out")
        if fixed is not None and fixed != self.batch:
            raise self.wrong(f"`batch: {self.batch}`, but the model takes batches of {fixed}: say `batch: {fixed}`")

    def _size(self, declared: tuple[int, int] | None, given: tuple[int | None, ...]) -> tuple[int, int]:
        size = self.model.metadata.get("size") if declared is None else declared
        known = isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        height, width = (
            own if own is not None else size[axis] if known and size is not None else None
            for axis, own in enumerate(given)
        )
        if height is None or width is None:
            raise self.wrong("the model leaves the size of its input open: say `size: [height, width]`")
        if declared is not None and (height, width) != tuple(declared):
            raise self.wrong(
                f"`size: [{declared[0]}, {declared[1]}]` (height, width), but the model's input is {height} x {width}: "
                f"say `size: [{height}, {width}]`, or leave it out"
            )
        return height, width
