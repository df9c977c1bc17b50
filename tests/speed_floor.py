"""What reading a photo costs at least on this machine: `python -m tests.speed_floor [--size 1160 720]`.

Counts the multiplications and the bytes of every node's networks, layer by layer, and divides them by what this machine
was measured to do: a large matrix product, and a large copy. One thread. A layer takes at least the longer of the two.
PNet looks everywhere, and with a screen before it at a few tiles.
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
from lprf_centernet.detector import levels
from lprf_mtcnn.nets import ONET_SIZE
from lprf_mtcnn.proposers import SEEN, pyramid

# a photo: what ONet is shown and what is read, without and with a screen, and where PNet looks then; of street photos
# about so many
PROPOSALS, PLATES, SCREENED, TILES = 40, 1, 10, 10
SCREEN = "any-centernet-small"


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
        f"one thread: {products / 1e9:.0f} thousand million products a second in float32, {low / 1e9:.2g} in bfloat16;"
    )
    print(f"{bandwidth / 1e9:.1f} GB a second")
    least = tuple(options.min_plate)
    shown: dict[str, dict[str, list[list[int]]]] = {
        "PNet everywhere": {
            "cn-pnet": [[1, 3, *size] for size in pyramid(*options.size, least, 0.707)],
            "cn-onet": [[PROPOSALS, 3, *ONET_SIZE]],
        },
        "with a screen": {
            SCREEN: [[1, 3, *size] for size in levels(*options.size, least)],
            "cn-pnet": [[TILES, 3, *SEEN]],
            "cn-onet": [[SCREENED, 3, *ONET_SIZE]],
        },
    }
    overrides = {"runtime.backend": "torch", "runtime.device": "cpu", "detect.pnet": "cn-pnet", "detect.screen": SCREEN}
    steps = lprf.load("read-plates", overrides=overrides).graph.steps
    networks = [network for node, built in steps for network in networks_of(node.component, built)]
    for title, calls in shown.items():
        total = 0.0
        print(f"{title:20} {'calls':>6} {'million products':>18} {'MB':>8} {'ms at least':>12}")
        for network in networks:
            if network.name == SCREEN and SCREEN not in calls:
                continue
            shapes = calls.get(network.name, [[PLATES, *network.example.shape[1:]]])
            each = [cost(network.module, torch.zeros(shape), products, bandwidth) for shape in shapes]
            seconds = sum(one.seconds for one in each)
            total += seconds
            print(
                f"{network.name:20} {len(shapes):6} {sum(one.products for one in each) / 1e6:18.0f} "
                f"{sum(one.bytes for one in each) / 1e6:8.1f} {1e3 * seconds:12.2f}"
            )
        print(f"{'a photo':20} {'':6} {'':18} {'':8} {1e3 * total:12.2f}\n")


if __name__ == "__main__":
    main()
