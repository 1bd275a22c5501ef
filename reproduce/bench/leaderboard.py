"""The leaderboard of attribution methods: tables in docs/leaderboard, and docs/leaderboard.md.

    python -m reproduce.bench.leaderboard scenes               # drawn scenes, takes minutes
    python -m reproduce.bench.leaderboard images --data PATH   # a folder of class folders
    python -m reproduce.bench.leaderboard peers                # comparison with other packages
    python -m reproduce.bench.leaderboard page                 # only update the page

The first run trains small networks on scenes and caches them. An interrupted run continues where
it stopped. `--limit` sets the number of images.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import zfnet
from reproduce import REPOSITORY
from reproduce.bench import leaderboard_page, peers
from zfnet.benchmarking import (
    METRICS,
    BenchmarkTable,
    load_shortcut_scenes,
    metric_agreement,
    rank_agreement,
)
from zfnet.data.cache import cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.io import atomic_write
from zfnet.data.scenes import load_scenes
from zfnet.training.config import load_config
from zfnet.training.loop import train

OUT = REPOSITORY / "docs" / "leaderboard"
RECIPE = REPOSITORY / "configs" / "scenes.yaml"
TOLERANCE = 4  # pixels around the object that count as a hit, of 112
RANKED = ("pointing", "energy", "insertion", "deletion", "road", "sensitivity_n", "cascading")
STABLE = ("pointing", "insertion", "deletion")  # compared over networks
NETWORKS = {
    "seed 0": (0, ()),
    "seed 1": (1, ()),
    "seed 2": (2, ()),
    "AlexNet": (0, ("model.arch=alexnet",)),
}
METHODS = dict(zfnet.METHODS) | {
    "smoothgrad": partial(zfnet.METHODS["smoothgrad"], samples=16, batch=16),
    "integrated_gradients": partial(zfnet.METHODS["integrated_gradients"], steps=16, batch=16),
    "occlusion": partial(zfnet.METHODS["occlusion"], size=16, stride=8),
}
Loader = Callable[[str], Images]


def main() -> None:
    options = parse_arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    commands = {"scenes": scenes, "shortcut": shortcut, "images": images, "peers": run_peers}
    if options.command != "page":
        commands[options.command](options)
    leaderboard_page.write(OUT)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the leaderboard of attribution methods.")
    parser.add_argument("command", choices=["scenes", "shortcut", "images", "peers", "page"])
    parser.add_argument("--limit", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument(
        "--model", default="imagenet65k", help="network for images (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, help="tree for images, <class>/*.JPEG (default: none)")
    options = parser.parse_args()
    if options.command == "images" and options.data is None:
        parser.error("images needs --data PATH")
    return options


def run(name: str, model: nn.Module, limit: int, metrics, data="scenes") -> BenchmarkTable:
    """Score all methods, write NAME.csv, and return the table."""
    metrics = [
        METRICS[m].with_options(tolerance=TOLERANCE) if m == "pointing" else m for m in metrics
    ]
    table = zfnet.benchmark(
        model, METHODS, data, metrics, limit=limit, correct_only=True,
        resume=cache_dir() / f"leaderboard-{name}-{limit}.jsonl", progress=tqdm,
    )  # fmt: skip
    table.to_csv(OUT / f"{name}.csv")
    print(f"{name}: {table.info}\n{table}")
    return table


def scenes(options: argparse.Namespace) -> None:
    """Write scenes.csv, and the rank correlations between metrics and between networks."""
    tables = []
    for name, (seed, overrides) in NETWORKS.items():
        full = name == "seed 0"
        model = network("scenes", seed, overrides, lambda n, s: load_scenes(n, seed=s))
        metrics = [*METRICS, "speed", "memory"] if full else STABLE
        file = "scenes" if full else f"scenes-{name.lower().replace(' ', '-')}"
        tables.append(run(file, model, options.limit, metrics))
    write_matrix("metric-agreement", RANKED, metric_agreement(tables[0], RANKED))
    for metric in STABLE:
        write_matrix(f"network-agreement-{metric}", list(NETWORKS), rank_agreement(tables, metric))


def shortcut(options: argparse.Namespace) -> None:
    """Write shortcut.csv, shortcut-object.csv, and the accuracy without tag or object."""
    model = network("shortcut", 0, (), lambda n, s: load_shortcut_scenes(n, seed=s + 2))
    metrics = ("pointing", "energy", "insertion", "deletion")
    run("shortcut", model, options.limit, metrics, "shortcut")
    run("shortcut-object", model, options.limit, ("pointing", "energy"), "shortcut-object")
    conditions = {
        "with tag and object": None,
        "without the tag": "tag",
        "without the object": "object",
    }
    rows = {name: f"{accuracy(model, masked):.1f}" for name, masked in conditions.items()}
    write_rows("shortcut-accuracy", ["images", "accuracy, %"], list(rows.items()))


def accuracy(model: nn.Module, masked: str | None) -> float:
    """Return the accuracy in percent on shortcut scenes with the tag or object replaced by gray."""
    images = load_shortcut_scenes(500, seed=4, plausible=True, mask=masked or "tag")
    assert images.masks is not None
    border = (images.masks.shape[1] - images.size) // 2
    correct = 0
    for rows in np.array_split(np.arange(len(images)), 10):
        x = images.batch(rows)
        if masked:
            mask = torch.from_numpy(images.masks[rows][:, border:-border, border:-border])
            x = x.masked_fill(mask[:, None], 0.0)
        correct += int((model(x).argmax(1) == torch.from_numpy(images.labels[rows])).sum())
    return 100 * correct / len(images)


def images(options: argparse.Namespace) -> None:
    """Write MODEL.csv for a tree of class folders."""
    model = zfnet.load(options.model)
    metrics = [name for name, metric in METRICS.items() if not metric.needs_mask]
    run(Path(options.model).stem, model, options.limit, [*metrics, "speed", "memory"], options.data)


def run_peers(options: argparse.Namespace) -> None:
    """Write peers.csv, which compares our maps with those of other packages."""
    model = network("scenes", 0, (), lambda n, s: load_scenes(n, seed=s))
    x = load_scenes(options.limit, seed=1).batch(range(options.limit))
    write_rows("peers", peers.HEADER, peers.compare(model, x, progress=tqdm))


def network(kind: str, seed: int, overrides: tuple[str, ...], load: Callable[[int, int], Images]):
    """Return a network of configs/scenes.yaml; train it if it is not in the cache."""
    config = load_config(RECIPE, [f"seed={seed}", *overrides])
    splits = {"train": load(config.data.scenes, 0), "val": load(500, 1)}
    key = digest(RECIPE.read_text(), seed, *overrides, splits["train"].digest)[:20]
    out = cache_dir() / f"leaderboard-{kind}-{key}"
    if not (out / "model.safetensors").exists():
        train(
            config,
            lambda split, side: splits[split],
            out,
            resume=(out / "state.safetensors").exists(),
        )
    model = zfnet.load(out / "model.safetensors")
    model.cam_head = peers.pooling_head(model, splits["train"])
    return model


def write_matrix(name: str, labels, matrix: np.ndarray) -> None:
    rows = [[label, *(f"{v:.2f}" for v in row)] for label, row in zip(labels, matrix, strict=True)]
    write_rows(name, ["", *labels], rows)


def write_rows(name: str, header, rows) -> None:
    """Write OUT/NAME.csv."""
    with atomic_write(OUT / f"{name}.csv") as path, path.open("w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
