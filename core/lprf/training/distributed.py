"""Several processes as one: who am I, my rows of the global batch, and sums over everybody.

Started by `torchrun --nproc-per-node N -m lprf run recipe.yaml`. With one process every function is its plain self,
so that trainers need no second path.
"""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Share:
    """One process's part of a global batch: process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    def rows(self, count: int) -> slice:
        """The rows that are this process's of a batch of `count`: contiguous, in the order of the ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def under_torchrun() -> bool:
    """Whether a launcher has set the environment for several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Whether this is the process that speaks, before and after the processes are joined too."""
    return os.environ.get("RANK", "0") == "0" or not under_torchrun()


def start(device: torch.device) -> torch.device:
    """Join the other processes, if a launcher has started several; gives the device of this one.

    NCCL where `device` is a GPU (one GPU a process, by LOCAL_RANK), gloo elsewhere.
    """
    if not under_torchrun():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # optimisers import it at their first step; where a group is there already, it then keeps that for ever, and
        # the group's threads, still letting go of tensors, abort the process as the interpreter ends
        importlib.import_module("torch._dynamo")
        # long, because rank 0 may make samples or validate for hours while the others wait
        wait = datetime.timedelta(hours=24)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=wait)
    return device


def stop() -> None:
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def active() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share() -> Share:
    """Which process this is, of how many."""
    return Share(dist.get_rank(), dist.get_world_size()) if active() else Share()


def is_main() -> bool:
    """Whether this is the process that writes: the first, or the only one."""
    return share().rank == 0


def broadcast(value: Any) -> Any:
    """The first process's `value`, on all: plain data only (it crosses the processes of one run, pickled)."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until all processes are here."""
    if active():
        dist.barrier()


def total(value: Tensor) -> Tensor:
    """The sum of `value` over the processes; no gradient flows through it."""
    value = value.detach()
    if active():
        value = value.clone()
        dist.all_reduce(value)
    return value


def mean(values: Tensor) -> Tensor:
    """The mean of `values` (any shape, any number a process) over the global batch; 0 where there are none.

    What it gives differs between processes; averaged over them, as `train` averages gradients, it is the mean.
    """
    count = total(torch.tensor(float(values.numel()), device=values.device))
    return values.sum() * share().size / count.clamp(min=1)


def gather(values: Tensor) -> tuple[Tensor, slice]:
    """`values` [n, …] of all processes, in the order of the ranks, and where this process's own stand in it.

    No gradient flows through it; n may differ.
    """
    values = values.detach()
    if not active():
        return values, slice(0, len(values))
    mine = share()
    counts = total(F.one_hot(torch.tensor(mine.rank, device=values.device), mine.size) * len(values)).tolist()
    # NCCL gathers equal shapes only
    padded = values.new_zeros((max(counts), *values.shape[1:]))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    start = sum(counts[: mine.rank])
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]), slice(start, start + len(values))


def hardest(losses: Tensor, count: int | Tensor) -> Tensor:
    """Which of `losses` [n] are among the `count` largest of the global batch: bool [n].

    Online hard-example mining (MTCNN, arXiv 1604.02878, 3.3) over all processes; of equal ones the first are taken.
    """
    everything, mine = gather(losses)
    kept = torch.zeros(len(everything), dtype=torch.bool, device=losses.device)
    kept[torch.argsort(everything, descending=True, stable=True)[: int(count)]] = True
    return kept[mine]


class _Dropout(nn.Module):
    """Dropout of which the processes' masks are rows of one global mask, as far as that is cheap (2-D inputs)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mine = share()
        if x.dim() == 2:
            ones = x.new_ones((len(x) * mine.size, x.shape[1]))
            mask = F.dropout(ones, self.p)[mine.rank * len(x) : (mine.rank + 1) * len(x)]
            return x * mask
        seed = torch.randint(2**62, (1,)).item() + mine.rank
        generator = torch.Generator(x.device).manual_seed(int(seed))
        return x * torch.empty_like(x).bernoulli_(1 - self.p, generator=generator) / (1 - self.p)


def prepare(network: nn.Module, device: torch.device) -> nn.Module:
    """Make one network fit for several processes: dropout over the global batch, synchronised norms on GPUs,
    and the first process's weights in all."""
    if not active():
        return network
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, _Dropout(child.p))
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for tensor in network.state_dict().values():
        dist.broadcast(tensor, 0)
    return network


def average(parameters: Iterable[nn.Parameter], buffers: Iterable[Tensor]) -> None:
    """Average gradients and floating buffers (running statistics) over the processes, in place, in one message."""
    if not active():
        return
    parameters = list(parameters)
    buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
    given = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    tensors = [*grads, *buffers]
    flat = torch.cat([given, *[tensor.reshape(-1).float() for tensor in tensors]])
    dist.all_reduce(flat)
    given, flat = flat[: len(given)], flat[len(given) :] / share().size
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
    for parameter, grad, count in zip(parameters, grads, given.tolist(), strict=True):
        parameter.grad = grad if count else None
