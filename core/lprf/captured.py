"""A function of tensors, replayed as a CUDA graph: its kernels are launched in one go, not one by one.

Such a function computes on the device alone: it waits for nothing, its shapes do not depend on values, and it makes no
tensor out of Python's numbers.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Results = Sequence[Tensor | None]


class Captured:
    """Calls a function, the same every time; on a GPU, from the second time that its tensors come in the same shapes,
    replays it.

    kept: of how many such shapes, those used last, a graph is kept: each holds the memory of all that lies between.
    What cannot be captured is called, and told in a warning.
    """

    def __init__(self, kept: int = 4):
        self.kept = kept
        self._graphs: OrderedDict[tuple[object, ...], _Graph | None] = OrderedDict()  # None: came once
        self._able = True

    @torch.inference_mode()
    def __call__(self, function: Callable[..., Results], *given: Tensor) -> Results:
        """What the function gives for these tensors; the results are the caller's own."""
        if given[0].device.type != "cuda" or not self._able:
            return function(*given)
        key = tuple((tensor.device, tensor.dtype, tensor.shape) for tensor in given)
        if key in self._graphs:
            graph = self._graphs[key] or self._captured(function, given)
        else:  # photos of many sizes come once each: not worth a graph
            graph = None
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > self.kept:
            self._graphs.popitem(last=False)
        return function(*given) if graph is None else graph(*given)

    def _captured(self, function: Callable[..., Results], given: Sequence[Tensor]) -> _Graph | None:
        try:
            return _Graph(function, given)
        except RuntimeError as error:
            self._able = False
            warnings.warn(f"runs without a CUDA graph, which is slower: {error}", RuntimeWarning, stacklevel=3)
            return None


class _Graph:
    """Tensors of its own that are copied into, the graph, and the tensors that it writes."""

    def __init__(self, function: Callable[..., Results], examples: Sequence[Tensor]):
        current = torch.cuda.current_stream(examples[0].device)
        with torch.cuda.stream(current):  # which it is again afterwards, even where the capture fails
            self.given = [example.clone() for example in examples]
            aside = torch.cuda.Stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):  # libraries set themselves up in a first call, which cannot be captured
                function(*self.given)
            current.wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            # other threads decode and copy meanwhile: only this one's calls are held to what can be captured
            with torch.cuda.graph(self.graph, stream=aside, capture_error_mode="thread_local"):
                self.results = function(*self.given)

    def __call__(self, *given: Tensor) -> Results:
        with torch.cuda.device(given[0].device):
            for own, tensor in zip(self.given, given, strict=True):
                own.copy_(tensor)
            self.graph.replay()
            return tuple(None if result is None else result.clone() for result in self.results)
