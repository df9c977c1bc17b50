"""`lprnet.trainer`: a reader and the spatial transformer before it, learnt together from plates and their texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lprf import weights
from lprf.context import Context
from lprf.data import Dataset
from lprf.errors import InputFailure, LprfError, WeightsError
from lprf.plate_format import load_format
from lprf.training import distributed
from lprf.training.distributed import Share
from lprf.training.loop import Task, record, train
from lprf.training.shares import Shares
from lprf_lprnet.net import MEAN, SCALE, LPRNet, time_steps
from lprf_lprnet.pictures import labelled, pictures, whole
from lprf_lprnet.slots import SlotNet
from lprf_lprnet.trainer_params import TrainerParams
from lprf_stn.net import STN

logger = logging.getLogger("lprf.training")

CHUNK = 128  # plates read at a time in validation


class Reader(nn.Module):
    """Transformer and recognizer as one: bytes in, logits out."""

    def __init__(self, stn: STN | None, net: LPRNet | SlotNet):
        super().__init__()
        self.stn, self.net = stn, net

    def forward(self, images: Tensor) -> Tensor:
        """images: uint8 [N, h, w, 3] BGR. Logits [N, classes, time steps or slots], float32."""
        x = (images.permute(0, 3, 1, 2).float() - MEAN) / SCALE
        if self.stn is not None:
            x = self.stn(x)
        logits: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return logits.float()


class ReaderTask(Task):
    """Draws plates from the datasets in their shares, at a difficulty that rises as they are read.

    The curriculum: whenever `params.raise_at` of the plates of an interval were read right, pictures become a step
    more difficult. On hard plates from the first step CTC learns nothing for a very long time.
    """

    def __init__(
        self,
        params: TrainerParams,
        device: torch.device,
        datasets: Sequence[Dataset],
        val: Dataset | None,
        alphabet: str,
    ):
        self.params, self.device, self.alphabet = params, device, alphabet
        self.codes = {character: i for i, character in enumerate(alphabet)}
        size = params.size
        longest = params.slots if params.decoder == "slots" else time_steps(size) // 2
        self.sources = [pictures(dataset, size, alphabet, longest, params.balance) for dataset in datasets]
        for source in self.sources:
            for problem in source.problems[:5]:
                logger.info("  %s", problem)
            if source.problems:
                logger.info("  %d plates or pictures were left out", len(source.problems))
        self.shares = Shares(params.shares, len(datasets))
        self.difficulty = params.difficulty[0]
        classes = len(alphabet) + 1
        stn = STN(size, pool=2 if size[0] >= 40 else 1) if params.stn else None
        net: LPRNet | SlotNet
        if params.decoder == "slots":
            net = SlotNet(classes, size, params.width, params.slots, params.dropout)
        else:
            net = LPRNet(classes, size, params.width, params.dropout, params.context)
        self.reader = Reader(stn, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks = {"lprnet": net} if stn is None else {"stn": stn, "lprnet": net}
        self.lr_factors = {"stn": params.stn_lr}
        self.val = self._validation(val) if val is not None else None

    def batch(self, step: int, rng: np.random.Generator, share: Share) -> Any:
        batch = self.params.batch
        chosen = self.shares.draw(rng, batch)
        seeds = rng.integers(2**63, size=batch)
        rows = range(batch)[share.rows(batch)]
        images, texts = [], []
        for row in rows:
            own = np.random.default_rng(int(seeds[row]))
            image, text = self.sources[int(chosen[row])].draw(own, self.difficulty)
            images.append(image)
            texts.append(text)
        return {"images": torch.from_numpy(np.stack(images)), **self._targets(texts)}

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        logits = self.reader(batch["images"])
        codes, lengths = batch["codes"], batch["lengths"]
        if self.params.decoder == "slots":
            loss = F.cross_entropy(logits, codes)
            right = (logits.argmax(1) == codes).all(1)
        else:
            log_probabilities = logits.log_softmax(1).permute(2, 0, 1)
            blank = len(self.alphabet)
            loss = F.ctc_loss(log_probabilities, codes, _steps(logits), lengths, blank, zero_infinity=True)
            right = torch.tensor(
                [a == b for a, b in zip(_greedy(logits, blank), _cut(codes, lengths), strict=True)],
                device=logits.device,
            )
        return loss, {"right": right.float().mean(), "difficulty": self.difficulty}

    def interval(self, step: int, metrics: Mapping[str, float]) -> bool:
        if metrics["right"] < self.params.raise_at or self.difficulty >= self.params.difficulty[1]:
            return False
        self.difficulty = min(self.params.difficulty[1], self.difficulty + self.params.raise_by)
        return True

    def state(self) -> dict[str, Any]:
        return {"difficulty": self.difficulty}

    def load_state(self, state: dict[str, Any]) -> None:
        self.difficulty = state["difficulty"]

    def validate(self) -> dict[str, float]:
        """Whole plates right, and but for the first character, which is what is hardest."""
        if self.val is None:
            return {}
        images, texts = self.val
        read = self.texts(self.logits(images))
        right = sum(a == b for a, b in zip(read, texts, strict=True))
        rest = sum(a[1:] == b[1:] for a, b in zip(read, texts, strict=True))
        return {"score": right / len(texts), "without_first": rest / len(texts)}

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of uint8 [N, h, w, 3], on the device."""
        return torch.cat([self.reader(part.to(self.device)) for part in images.split(CHUNK)])

    def texts(self, logits: Tensor) -> list[str]:
        """Greedily decoded."""
        blank = len(self.alphabet)
        if self.params.decoder == "slots":
            rows = [row[: row.index(blank)] if blank in row else row for row in logits.argmax(1).tolist()]
        else:
            rows = _greedy(logits, blank)
        return ["".join(self.alphabet[code] for code in row) for row in rows]

    def temperature(self) -> float | None:
        """What logits are to be divided by for confidences to mean something, fitted on the validation plates."""
        if self.val is None:
            return None
        images, texts = self.val
        logits, targets = self.logits(images), self._targets(texts)
        codes, lengths = targets["codes"].to(self.device), targets["lengths"].to(self.device)

        def cost(temperature: float) -> float:
            scaled = logits / temperature
            if self.params.decoder == "slots":
                return float(F.cross_entropy(scaled, codes))
            steps = scaled.log_softmax(1).permute(2, 0, 1)
            return float(F.ctc_loss(steps, codes, _steps(scaled), lengths, len(self.alphabet), zero_infinity=True))

        return min(np.geomspace(0.25, 8, 121).round(3).tolist(), key=cost)

    def _validation(self, dataset: Dataset) -> tuple[Tensor, list[str]] | None:
        images, texts = [], []
        for example, plate in labelled([dataset]):
            text = plate.text or ""
            if set(text) <= set(self.alphabet):
                try:
                    images.append(torch.from_numpy(whole(example, plate, self.params.size)))
                    texts.append(text)
                except InputFailure as failure:
                    logger.warning("validation: %s", failure)
        if not images:
            raise LprfError("the validation data have no plate with a text that the alphabet can write")
        return torch.stack(images), texts

    def _targets(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Codes [N, longest], padded with the blank, and lengths [N]."""
        longest = self.params.slots if self.params.decoder == "slots" else max(map(len, texts))
        codes = torch.full((len(texts), longest), len(self.alphabet))
        for row, text in enumerate(texts):
            codes[row, : len(text)] = torch.tensor([self.codes[c] for c in text[:longest]])
        return {"codes": codes, "lengths": torch.tensor([len(text) for text in texts])}


class ReaderTrainer:
    """`lprnet.trainer`."""

    def __init__(self, params: TrainerParams, context: Context):
        self.params, self.context = params, context

    def run(self, datasets: Sequence[Dataset], val: Dataset | None = None) -> dict[str, Path]:
        """Train; gives the weights' paths by port."""
        assert self.context.folder is not None
        params = self.params
        alphabet = params.alphabet or load_format(params.format).alphabet
        task = ReaderTask(params, self.context.device, datasets, val, alphabet)
        self._begin(task)
        result = train(task, params, self.context)
        if not distributed.is_main():
            return {port: self.context.folder / f"{port}{weights.SUFFIX}" for port in task.networks}
        for name, network in task.networks.items():
            network.load_state_dict(result.weights[name])
            network.eval()
        net = task.reader.net
        training = {
            **record(result, params, self.context),
            "data": [f"{len(source)} {type(source).__name__.lower()} plates" for source in task.sources],
            "fingerprints": [dataset.fingerprint()[:16] for dataset in datasets],
            "plates seen": result.steps * params.batch * params.accumulate,
        }
        described: dict[str, dict[str, Any]] = {
            "lprnet": {**net.metadata(), "alphabet": alphabet, "blank": len(alphabet)},
        }
        temperature = task.temperature()
        if temperature is not None:
            described["lprnet"]["temperature"] = temperature
        if task.reader.stn is not None:
            described["stn"] = task.reader.stn.metadata()
        paths = {}
        for name, metadata in described.items():
            paths[name] = weights.save(
                self.context.folder / f"{name}{weights.SUFFIX}",
                result.weights[name],
                {**metadata, "licence": params.licence, "training": training},
            )
        return paths

    def _begin(self, task: ReaderTask) -> None:
        """Begin from other weights, where the parameters name some. Raises WeightsError where they do not fit."""
        for name, given in (("lprnet", self.params.init), ("stn", self.params.init_stn)):
            if given is None:
                continue
            found = self.context.weights(given)
            network = task.networks.get(name)
            if network is None:
                raise WeightsError(
                    f"{self.context.node}: there is no transformer to begin from {found.path}: stn is false"
                )
            own = {**network.metadata(), **({"alphabet": task.alphabet} if name == "lprnet" else {})}  # type: ignore[operator]
            for key, value in own.items():
                theirs = found.info.metadata.get(key, value)
                if theirs != value:
                    raise WeightsError(f"{self.context.node}: {key} is {value}, in {found.path} it is {theirs}")
            found.into(network)


def _steps(logits: Tensor) -> Tensor:
    """The time steps of each plate, all of them."""
    return torch.full((len(logits),), logits.shape[2])


def _greedy(logits: Tensor, blank: int) -> list[list[int]]:
    """Codes by greedy CTC decoding of [N, classes, T]."""
    best = logits.argmax(1)
    new = torch.ones_like(best, dtype=torch.bool)
    new[:, 1:] = best[:, 1:] != best[:, :-1]
    return [row[keep].tolist() for row, keep in zip(best, new & (best != blank), strict=True)]


def _cut(codes: Tensor, lengths: Tensor) -> list[list[int]]:
    return [row[:length] for row, length in zip(codes.tolist(), lengths.tolist(), strict=True)]
