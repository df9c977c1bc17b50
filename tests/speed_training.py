"""How much faster LPRNet trains than written down plainly: `python tests/speed_training.py`.

Both sides start from the same weights and see the same 200 batches of rendered plates, held in memory; a step is
forward, loss, backward and the optimiser's. Steps of the two alternate, so that a machine whose speed drifts does both
the same wrong; a ratio is of the medians. Ours keeps freed memory, which would speed up the plain one too, so the
plain one runs in a process of its own.

Each side drops out what its own coins say, and rounds as its own order of sums has it; either alone parts the losses of
two runs by several percent. `--exact` is for comparing losses: both drop out the same and compute in float64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lprf import weights
from lprf.context import Context
from lprf.memory import keep_freed
from lprf.plate_format import load_format
from lprf_lprnet.net import MEAN, SCALE, LPRNet
from lprf_synth.crops import SynthPlates
from lprf_synth.plugin import PlatesParams
from plain_lprnet import PlainLPRNet

SIZE, LENGTH, PLATES, DROPOUT = (24, 94), 7, 2048, 0.5


def plates() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 24, 94, 3] and codes [N, 7] of rendered plates."""
    alphabet = load_format("cn").alphabet
    images, codes = [], []
    context = Context(torch.device("cpu"), torch.float32, weights.find_and_load)
    dataset = SynthPlates(PlatesParams(size=SIZE, count=2 * PLATES, seed=1), context)
    for index in range(len(dataset)):
        example = dataset[index]
        text = example.plates[0].text or ""
        if len(text) == LENGTH:
            images.append(example.image())
            codes.append([alphabet.index(character) for character in text])
        if len(images) == PLATES:
            break
    return np.stack(images), np.array(codes)


class SameCoins(nn.Module):
    """Dropout whose coins depend on how often it was called alone, not on how a side lays out its tensors."""

    def __init__(self, p: float):
        super().__init__()
        self.p, self.toss = p, torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand(x.shape, generator=self.toss) >= self.p
        return x * kept.to(x.dtype) / (1 - self.p)


def side(options: argparse.Namespace, plain: bool, data: tuple[np.ndarray, np.ndarray], pipe: Connection) -> None:
    """Take a step whenever told to; answers with its seconds and its loss."""
    batch = options.batch
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    classes = len(load_format("cn").alphabet) + 1
    ours = LPRNet(classes, SIZE, dropout=DROPOUT)
    net: nn.Module = ours.to(memory_format=torch.channels_last)
    if plain:
        net = PlainLPRNet(classes, DROPOUT).load_ours(ours)
    dtype = torch.float64 if options.exact else torch.float32
    if options.exact:
        coins = SameCoins(DROPOUT)
        if plain:
            net.four[1] = net.four[5] = coins
        else:
            net.dropout = coins
    net.train().to(dtype)
    if not plain:
        keep_freed()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    images, codes = data
    steps, lengths = torch.full((batch,), 18), torch.full((batch,), LENGTH)
    while pipe.recv():
        rows = rng.integers(len(images), size=batch)
        pixels, texts = torch.from_numpy(images[rows]), torch.from_numpy(codes[rows])
        start = time.perf_counter()
        x = (pixels.permute(0, 3, 1, 2).to(dtype) - MEAN) / SCALE
        with torch.autocast("cpu", torch.bfloat16, enabled=not (plain or options.exact)):
            logits = net(x.contiguous() if plain else x)
        scores = logits.to(dtype).log_softmax(1).permute(2, 0, 1)
        loss = F.ctc_loss(scores, texts, steps, lengths, classes - 1, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pipe.send((time.perf_counter() - start, loss.item()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--exact", action="store_true", help="in float64, dropping out the same: for losses, not speed")
    options = parser.parse_args()
    data = plates()
    spawn = multiprocessing.get_context("spawn")
    pipes = []
    for plain in (True, False):
        pipe, theirs = spawn.Pipe()
        spawn.Process(target=side, args=(options, plain, data, theirs), daemon=True).start()
        pipes.append(pipe)
    seconds: list[list[float]] = [[], []]
    losses: list[list[float]] = [[], []]
    for _ in range(options.steps):
        for which, pipe in enumerate(pipes):
            pipe.send(True)
            taken, loss = pipe.recv()
            seconds[which].append(taken)
            losses[which].append(loss)
    for pipe in pipes:
        pipe.send(False)
    last = [statistics.mean(values[-20:]) for values in losses]
    speed = [options.batch / statistics.median(values) for values in seconds]
    print(f"{torch.__version__}, {options.threads} threads, batches of {options.batch}, {options.steps} steps")
    print(f"plain: {speed[0]:.0f} plates a second, loss of the last 20 steps {last[0]:.4f}")
    print(f"ours:  {speed[1]:.0f} plates a second, loss of the last 20 steps {last[1]:.4f}")
    print(f"ratio: {speed[1] / speed[0]:.2f}, loss {100 * (last[1] / last[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
