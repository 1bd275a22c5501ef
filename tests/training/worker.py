"""The worker process of test_distributed.py, started by torchrun or with its variables."""

import os
import signal
import sys
from pathlib import Path

import zfnet.training.step
from zfnet.checkpoint import load
from zfnet.data.folders import load_folder
from zfnet.top import top_activations
from zfnet.training.config import load_config
from zfnet.training.distributed import LostPeerError, exit_after_lost_peer, join
from zfnet.training.evaluate import evaluate
from zfnet.training.loop import train


def train_and_search(config: Path, tree: Path, out: Path, distributed, device) -> None:
    """Train, evaluate and search; the main process writes the results."""
    train(
        load_config(config),
        lambda split, side: load_folder(tree / split, side=side, size=64),
        out,
        device=device,
        distributed=distributed,
    )
    model, images = load(out / "model.safetensors"), load_folder(tree / "train", side=73, size=64)
    scores = evaluate(model, images, batch=5, views=10, distributed=distributed)
    groups = [i // 2 for i in range(len(images))]
    tables = {
        "top": top_activations(
            model, images, ("conv1", "conv5"), 9, batch=4, distributed=distributed
        ),
        "grouped": top_activations(
            model,
            images,
            ("conv5",),
            3,
            batch=5,
            groups=groups,
            distributed=distributed,
            state=out / "search",
        ),
    }
    if distributed.is_main:
        for name, table in tables.items():
            table.save(out / f"{name}.safetensors", scores=[scores.top1, scores.top5, scores.n])


def main() -> int:
    task, config, tree, out = sys.argv[1], *map(Path, sys.argv[2:])
    try:
        with join("cpu", timeout=30) as (distributed, device):
            if task == "die" and distributed.rank == 1:
                calls = iter(range(4))  # three steps per epoch: in the second

                def die(*arguments):
                    if next(calls, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*arguments)

                original, zfnet.training.step.augment = zfnet.training.step.augment, die
            train_and_search(config, tree, out, distributed, device)
    except LostPeerError as error:
        print(error, file=sys.stderr)
        exit_after_lost_peer(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
