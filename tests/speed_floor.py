"""What reading a photo costs at least on this machine: `python -m tests.speed_floor [--size 1160 720]`.

Counts the multiplications and the bytes of every node's networks, layer by layer, and divides them by what this machine
was measured to do: a large matrix product, and a large copy. One thread. A layer takes at least the longer of the two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lprf
from lprf.network import networks_of
from lprf_mtcnn.proposers import pyramid

PROPOSALS, PLATES = 40, 1  # a photo: what ONet is shown, what is read; of street photos about so many


@dataclass
class Cost:
    """Of a network: multiplications with their additions, bytes read and written, seconds at least."""

    products: int = 0
    bytes: int = 0
    seconds: float = 0.0


def best(work: Callable[[], object], passes: int = 7) -> float:
    """The least seconds that `work` took."""
    taken = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def rates(dtype: torch.dtype) -> tuple[float, float]:
    """Products and bytes a second."""
    a, b = torch.randn(1024, 1024).to(dtype), torch.randn(1024, 1024).to(dtype)
    long = torch.empty(2**26, dtype=torch.uint8)
    other = torch.empty_like(long)
    return 1024**3 / best(lambda: a @ b), 2 * long.numel() / best(lambda: other.copy_(long))


def cost(net: nn.Module, images: Tensor, products: float, bandwidth: float) -> Cost:
    """What one call costs, over the convolutions and linear layers; what is between rides along with them."""
    found = Cost()
    handles = []

    def after(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        count = made.numel() * weight[0].numel()
        size = (given[0].numel() + made.numel() + weight.numel()) * 4
        found.products += count
        found.bytes += size
        found.seconds += max(count / products, size / bandwidth)

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            handles.append(layer.register_forward_hook(after))
    with torch.inference_mode():
        net(images)
    for handle in handles:
        handle.remove()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(1160, 720), help="height and width of the photo")
    parser.add_argument("--min-plate", type=int, nargs=2, default=(50, 15))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    products, bandwidth = rates(torch.float32)
    low, _ = rates(torch.bfloat16)
    print(
        f"one thread: {products / 1e9:.0f} thousand million products a second in float32, {low / 1e9:.0f} in bfloat16;"
    )
    print(f"{bandwidth / 1e9:.1f} GB a second")
    reader = lprf.load("read-plates", overrides={"runtime.backend": "torch", "detect.pnet": "cn-pnet"})
    sizes = list(pyramid(*options.size, tuple(options.min_plate), 0.707))
    total = 0.0
    print(f"{'network':12} {'calls':>6} {'million products':>18} {'MB':>8} {'ms at least':>12}")
    for node, built in reader.graph.steps:
        for network in networks_of(node.component, built):
            shape = list(network.example.shape[1:])
            if network.axes.keys() > {0}:
                calls = [[1, shape[0], *size] for size in sizes]
            else:
                calls = [[PROPOSALS if node.component.kind == "detector" else PLATES, *shape]]
            each = [cost(network.module, torch.zeros(call), products, bandwidth) for call in calls]
            seconds = sum(one.seconds for one in each)
            total += seconds
            print(
                f"{network.name:12} {len(calls):6} {sum(one.products for one in each) / 1e6:18.0f} "
                f"{sum(one.bytes for one in each) / 1e6:8.1f} {1e3 * seconds:12.2f}"
            )
    print(f"{'a photo':12} {'':6} {'':18} {'':8} {1e3 * total:12.2f}")


if __name__ == "__main__":
    main()
