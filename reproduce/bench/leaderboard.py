"""The leaderboard of attribution methods: tables in docs/leaderboard, and docs/leaderboard.md.

    python -m reproduce.bench.leaderboard all --data PATH      # everything below
    python -m reproduce.bench.leaderboard scenes               # drawn scenes
    python -m reproduce.bench.leaderboard shortcut             # scenes with a planted shortcut
    python -m reproduce.bench.leaderboard images --data PATH   # ImageNet-65k, with boxes of dogs
    python -m reproduce.bench.leaderboard peers --data PATH    # comparison with other packages
    python -m reproduce.bench.leaderboard page                 # only update the page

The first run trains small networks on scenes and caches them. An interrupted run continues where
it stopped. `--limit` sets the number of images.
"""

from __future__ import annotations

import argparse
import csv
import time
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

import zfnet
from reproduce import REPOSITORY
from reproduce.bench import leaderboard_page, peers
from reproduce.bench.leaderboard_networks import masked_accuracy, network
from zfnet.benchmarking import (
    METRICS,
    BenchmarkTable,
    load_shortcut_scenes,
    metric_agreement,
    rank_agreement,
)
from zfnet.data.cache import cache_dir
from zfnet.data.folders import load_folder
from zfnet.data.io import atomic_write
from zfnet.data.scenes import load_scenes

OUT = REPOSITORY / "docs" / "leaderboard"
TOLERANCE = 4  # pixels around the object that count as a hit, of 112
RANKED = ("pointing", "energy", "insertion", "deletion", "road", "sensitivity_n", "cascading")
ON_IMAGES = ("insertion", "deletion", "sensitivity_n", "cascading")
DOGS = REPOSITORY / "reproduce" / "lectures" / "dogs.csv"
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


def main() -> None:
    options = parse_arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    commands = {"scenes": scenes, "shortcut": shortcut, "images": images, "peers": run_peers}
    for name, command in commands.items():
        if options.command in (name, "all"):
            start = time.perf_counter()
            command(options)
            print(f"{name}: {(time.perf_counter() - start) / 60:.1f} minutes")
            leaderboard_page.write(OUT)
    leaderboard_page.write(OUT)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the leaderboard of attribution methods.")
    parser.add_argument("command", choices=["all", "scenes", "shortcut", "images", "peers", "page"])
    parser.add_argument("--limit", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument(
        "--models", default="imagenet65k",
        help="networks for images, separated by commas; peers use the first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder with val/<wnid>/*.JPEG (default: none)")
    options = parser.parse_args()
    if options.command in ("all", "images", "peers") and options.data is None:
        parser.error(f"{options.command} needs --data PATH")
    options.models = options.models.split(",")
    return options


def run(
    name: str, model: nn.Module, limit: int, metrics, data="scenes", boxes=None
) -> BenchmarkTable:
    """Score all methods, write NAME.csv, and return the table."""
    metrics = [
        METRICS[m].with_options(tolerance=TOLERANCE) if m == "pointing" else m for m in metrics
    ]
    table = zfnet.benchmark(
        model, METHODS, data, metrics, limit=limit, correct_only=True, boxes=boxes,
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
    rows = {name: f"{masked_accuracy(model, masked):.1f}" for name, masked in conditions.items()}
    write_rows("shortcut-accuracy", ["images", "accuracy, %"], list(rows.items()))


def images(options: argparse.Namespace) -> None:
    """Write images-MODEL.csv and dogs-MODEL.csv, and the rank correlations between metrics."""
    for name in options.models:
        model, stem = zfnet.load(name), Path(name).stem
        table = run(f"images-{stem}", model, options.limit, ON_IMAGES, options.data)
        run(f"dogs-{stem}", model, options.limit, ("pointing", "energy"), options.data, DOGS)
        write_matrix(f"images-agreement-{stem}", ON_IMAGES, metric_agreement(table, ON_IMAGES))


def run_peers(options: argparse.Namespace) -> None:
    """Write peers.csv, which compares our maps with those of other packages."""
    model = zfnet.load(options.models[0])
    images = load_folder(options.data / "val", size=model.size, side=round(model.size * 256 / 224))
    chosen = np.random.default_rng(0).permutation(len(images))[: options.limit]
    x = images.batch(np.sort(chosen))
    resume = cache_dir() / f"leaderboard-peers-{Path(options.models[0]).stem}.jsonl"
    write_rows("peers", peers.HEADER, peers.compare(model, x, resume, tqdm))


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
