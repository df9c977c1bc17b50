"""The training loop that every trainer shares.

A trainer gives a `Task` (networks, batches, a loss) and its parameters (`LoopParams` and its own); `train` does the
rest: warm-up and cosine, clipping, mixed precision, accumulation, averaged weights (EMA), validation, early
stopping, checkpoints, metrics in CSV and TensorBoard, progress, several processes under torchrun.

The declaration, in a plugin's light `plugin.py`:

    from lprf.training.params import LoopParams          # imports no torch

    class PnetTrainerParams(LoopParams):
        epochs: float | None = pydantic.Field(16, gt=0, description="passes over the samples")
        lr: float = pydantic.Field(0.004, gt=0, description="learning rate at its highest")

The implementation:

    from lprf.training import distributed
    from lprf.training.loop import Task, train

    class PnetTask(Task):
        def __init__(self, samples, params, device):
            self.networks = {"pnet": PNet().to(device)}      # torch's generator is seeded when a stage is built
            self.steps_per_epoch = len(samples) // params.batch
            ...

        def batch(self, step, rng, share):                   # this process's rows of global batch number `step`
            chosen = rng.integers(len(self.samples), size=self.params.batch)[share.rows(self.params.batch)]
            return {"images": torch.from_numpy(self.samples.images[chosen]), ...}        # on the CPU

        def loss(self, batch):                               # the batch, on the device
            losses = F.cross_entropy(self.networks["pnet"](batch["images"]), batch["labels"], reduction="none")
            kept = distributed.hardest(losses, count)        # of the global batch
            loss = distributed.mean(losses[kept])            # over the global batch
            return loss, {"class": loss}

        def validate(self):                                  # eval mode, no gradients, averaged weights
            return {"score": recall, "false_boxes": false}   # the highest "score" is the best

    class PnetTrainer:
        def __init__(self, params, context): ...

        def run(self, samples, val=None):
            result = train(PnetTask(samples, self.params, self.context.device), self.params, self.context)
            path = self.context.folder / "pnet.safetensors"
            if distributed.is_main():
                save_weights(path, ..., result.weights["pnet"])      # a state dict, CPU
            return {"weights": path}

What keeps resumed runs equal bit for bit:

- `batch` is a pure function of its arguments, of the data, and of what `state` gives; draw from `rng`, never from a
  global generator. It may run ahead, in other processes (`context.workers`), in any number of them.
- torch's own generator (dropout) is seeded anew before every step, from the seed and the step.
- A curriculum changes only in `interval`, called every `log_every` steps with the mean metrics since the last call;
  it returns True where batches change from then on, and what it remembers is in `state` / `load_state`.
- `folder/checkpoint.pt` holds everything else; it is written beside and renamed, and loaded without unpickling code.

Several processes: `batch` size is the global one and each process gets its rows of it; gradients are averaged. A loss
that is a plain mean over equally many rows needs nothing more; where counts differ between processes (hard-example
mining, positives only), use `distributed.mean`, `distributed.total` and `distributed.hardest`, which act as if there
were one process. Each is its plain self where there is one.
"""
