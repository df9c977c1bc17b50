"""For code that is captured as a CUDA graph: run on tensors without values, which are not on a CPU, within
`NothingFromTheHost`, whatever could not be captured fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NOWHERE = torch.device("meta")


class NothingFromTheHost(TorchFunctionMode):
    """Refuses to make a tensor out of Python's numbers: on a GPU that is a copy, which no capture allows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor), func
        if func in (torch.where, Tensor.where):
            assert all(isinstance(value, Tensor) for value in args), "a number in where"
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, (list, np.ndarray)) for part in index), "a list as index"
        return func(*args, **(kwargs or {}))
