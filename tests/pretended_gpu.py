"""A GPU that is none: `python -m tests.pretended_gpu RECIPE [NODE.KEY=VALUE...]` runs an inference recipe on it.

Its tensors say that they lie on the device "gpu", and are computed on the CPU. What would fail on a GPU fails, tensors
of two devices in one operation, and each time that the host would wait for the device is counted. Streams and CUDA
graphs need a real one. Prints JSON: the readings, the failures, how many batches, and the waits by function.

For a process of its own: it takes torch's spare device.
"""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

GPU = torch.device("privateuseone", 0)
# what needs a value or a shape that depends on values, so that the host waits
WAITING = {"_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2", "unique_dim"}
INDEXED = {"index", "index_put", "index_put_"}  # where by a mask
COPIES = {"_to_copy", "copy_", "lift_fresh"}  # may have tensors of both devices

waits: collections.Counter[str] = collections.Counter()


class Lent(Tensor):
    """A tensor on the device; `host` has its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> Lent:
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        lent: Lent = Tensor._make_wrapper_subclass(cls, host.size(), device=GPU, **layout)
        lent.host = host
        return lent

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        wait("tolist")
        return self.host.tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Lent:
        return Lent(self.host.new_tensor(data, dtype=dtype))


class OnTheGpu(TorchDispatchMode):
    """For what is made without a tensor of the device at hand."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU; its results lie where a GPU's would."""
    name = func._schema.name.removeprefix("aten::")
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    lent = [tensor for tensor in tensors if isinstance(tensor, Lent)]
    strange = [tensor for tensor in tensors if not isinstance(tensor, Lent) and tensor.dim()]
    if lent and strange and name not in COPIES:
        raise RuntimeError(f"{name}: tensors on two devices, in {place()}")
    wanted = kwargs.get("device")
    there = bool(lent) if wanted is None else torch.device(wanted).type == GPU.type
    masked = name in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
    fetched = name == "_to_copy" and not there and not kwargs.get("non_blocking")
    if lent and (name in WAITING or masked or fetched):
        wait(name)
    args, kwargs = tree_map(on_host, (args, kwargs))
    results = func(*args, **{key: value for key, value in kwargs.items() if key != "pin_memory"})
    if name.endswith("_") and not name.endswith("__"):  # in place: the values have changed, the tensor is the same
        return tensors[0]
    return tree_map(lambda value: Lent(value) if isinstance(value, Tensor) else value, results) if there else results


def on_host(value: Any) -> Any:
    if isinstance(value, Lent):
        return value.host
    return torch.device("cpu") if isinstance(value, torch.device) else value


def place() -> str:
    """The function of the project that is being computed."""
    frame: Any = sys._getframe()
    while not frame.f_globals["__name__"].startswith("lprf"):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"


def wait(why: str) -> None:
    waits[f"{place()} {why}"] += 1


def arrived(_: Any, upload: Any, memo: dict[int, Any]) -> dict[str, Any]:
    """In the place of `Graph._arrived`, whose copies run on a stream."""
    from lprf.data import begin_copy

    own = upload.host["frames"]
    frames = own.to(GPU)
    memo[id(frames)] = own
    rest = {port: begin_copy(value, GPU, lambda _: frames) for port, value in upload.host.items()}
    return {**rest, "frames": frames}


def main(recipe: str, *overrides: str) -> None:
    torch.inference_mode = lambda *_: torch.no_grad()  # which such tensors cannot take
    import lprf  # not before, since functions are decorated with it
    from lprf import stream
    from lprf_mtcnn.detector import MtcnnDetector

    _setup_privateuseone_for_python_backend(backend_module=Amp())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=) by way of the CPU
    stream.pick_device = lambda _: GPU
    stream.Graph._arrived = arrived
    MtcnnDetector.__call__ = MtcnnDetector.find_fixed
    changes = {"runtime.backend": "torch", "runtime.workers": 0, **dict(each.split("=", 1) for each in overrides)}
    with OnTheGpu():
        reader = lprf.load(recipe, overrides=changes)
        readings = [[reading.source, reading.text, *reading.box] for reading in reader.run()]
    summary = reader.summary
    print(json.dumps({"readings": readings, "failures": list(map(str, summary.failures)), "waits": waits}))


class Amp(_DummyBackendModule):
    """What torch.autocast asks a device for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def is_autocast_enabled(self) -> bool:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
