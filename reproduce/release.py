"""Pack a trained network as a bundled one, measure it, and write the model card.

    python -m reproduce.release pack RUN/model.safetensors --data PATH --name imagenet
    python -m reproduce.release card

`pack` fits the pooling head for class activation mapping on the training images, packs the weights
to int8 with one scale per output channel, and evaluates before and after packing. It writes
`zfnet/weights/NAME.safetensors` with its recipe and accuracy. `card` writes MODEL_CARD.md from the
bundled files, model_card.yaml and docs/animals.csv. All accuracies in the card are measured.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import torch
import yaml
from tqdm import tqdm

import zfnet
from reproduce import REPOSITORY
from reproduce.core.record import read_record
from zfnet.analysis.pooling_head import fit_pooling_head
from zfnet.checkpoint import BUNDLED, CheckpointError
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.io import write_text
from zfnet.data.tensor_file import read_metadata
from zfnet.forward import trace
from zfnet.model import Network, device_of
from zfnet.training.config import Config
from zfnet.training.evaluate import evaluate
from zfnet.training.sampling import epoch_order
from zfnet.training.setup import resolve_precision

TEMPLATE = REPOSITORY / "reproduce" / "site" / "templates" / "model_card.md"
FACTS = REPOSITORY / "reproduce" / "model_card.yaml"
CARD = REPOSITORY / "MODEL_CARD.md"
LOGS = REPOSITORY / "docs" / "training-logs"
ANIMALS = REPOSITORY / "docs" / "animals.csv"  # written by reproduce.animals
VAL_COLUMNS = ["val_top1_error", "val_top5_error", "val_n"]
FIG7_CLASSES = ("n02088094", "n02112018", "n02974003")  # Afghan hound, Pomeranian, car wheel
progress_bar = functools.partial(tqdm, leave=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "pack":
        try:
            model, train, val = _load(options)
        except (CheckpointError, DataError) as error:
            parser.error(str(error))
        if model.info["data"] != train.digest:
            parser.error(
                f"{options.checkpoint.name} was trained on other training images than those in "
                f"{options.data}"
            )
        scores = _pack(model, train, val, options)
        print(f"wrote {bundled_path(options.name)}: {scores['top1']:.2f} / {scores['top5']:.2f} %")
    write_card()
    print(f"wrote {CARD.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reproduce.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="pack and measure a network, and write the card")
    pack.add_argument("checkpoint", type=Path, help="model.safetensors of a training run")
    pack.add_argument(
        "--data", type=Path, required=True, help="its training data; val/ is evaluated"
    )
    pack.add_argument("--name", required=True, help="the bundled name, as in model_card.yaml")
    pack.add_argument(
        "--ten-crops", action="store_true", help="also evaluate ten crops (ten times as long)"
    )
    pack.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    commands.add_parser("card", help="write the card of the bundled networks")
    return parser


def _load(options: argparse.Namespace) -> tuple[Network, Images, Images]:
    """Return the network, and its training and validation images, read as in training."""
    model = zfnet.load(options.checkpoint, folded=False).to(options.device)
    skip = model.info.get("config", {}).get("data", {}).get("skip_unreadable", False)
    load = functools.partial(load_folder, skip_unreadable=skip, progress=progress_bar)
    return model, load(options.data / "train"), load(options.data / "val")


def _pack(model: Network, train: Images, val: Images, options: argparse.Namespace) -> dict:
    """Write the packed network with its measurements, and return its accuracy."""
    fast = resolve_precision(Config(), device_of(model)).precision
    model.cam_head = fit_head(zfnet.load(options.checkpoint).to(options.device), train, fast)
    before = measure(model, val, "before packing", fast)
    target = bundled_path(options.name)
    trial = target.with_suffix(".trial.safetensors")  # measured before it replaces the bundled one
    try:
        zfnet.save(model, trial, precision="int8")
        packed = zfnet.load(trial).to(options.device)
    finally:
        trial.unlink(missing_ok=True)  # every file in this folder is a bundled network
    after = measure(packed, val, "after packing", fast)
    exact = after if fast == "float32" else measure(packed, val, "after packing", "float32")
    model.info = {key: value for key, value in model.info.items() if key != "sha256"} | {
        "packing": "int8",
        "val": val.digest,
        "init": bundled_reference(model.info.get("init")),
        "accuracy": exact,
        "accuracy, packing": {"before packing": before, "after packing": after},
        "class ranks": class_ranks(packed, val),
        "pooling head": head_accuracy(packed, val),
    }
    if options.ten_crops:
        ten = measure(packed, val, "after packing", "float32", views=10)
        model.info["accuracy, ten crops"] = ten
    zfnet.save(model, target, precision="int8")
    return exact


def write_card() -> None:
    """Write MODEL_CARD.md of the bundled networks, and their training logs as CSV."""
    cards = [card(name, facts) for name, facts in card_facts().items()]
    LOGS.mkdir(parents=True, exist_ok=True)
    for entry in cards:
        write_text(LOGS / f"{entry['name']}.csv", training_log(entry["runs"]))
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    groups = animal_table(ANIMALS)
    write_text(CARD, template.render(cards=cards, groups=groups))


def card_facts() -> dict[str, dict]:
    """Return the entries of model_card.yaml for the bundled networks, best first."""
    facts = yaml.safe_load(FACTS.read_text("utf-8"))
    return {name: entry for name, entry in facts.items() if bundled_path(name).is_file()}


def card(name: str, facts: dict) -> dict:
    """Return the card's variables of a bundled network: facts, measurements and training runs."""
    model = zfnet.load(bundled_path(name))
    runs, top1 = training_runs(model), model.info["accuracy"]["top1"]
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if runs[-1]["config"]["stages"][-1].get("shared_fc6"):  # one weight per map
        shapes["fc6.weight"] = (shapes["fc6.weight"][0], shapes["conv5.weight"][0])
    return facts | {
        "name": name,
        "info": model.info,
        "before": model.info["accuracy, packing"]["before packing"],
        "ten": model.info.get("accuracy, ten crops") or recorded_ten_crops(model),
        "runs": runs,
        "initial": (runs[0].get("init") or {}).get("bundled"),
        "epochs": sum(run["epochs"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
        "parameters": sum(math.prod(shape) for shape in shapes.values()),
        "megabytes": bundled_path(name).stat().st_size / 1e6,
        "standard_error": (top1 * (100 - top1) / model.info["accuracy"]["n"]) ** 0.5,
    }


def training_log(runs: Sequence[dict]) -> str:
    """Return the log of all epochs of all runs as CSV."""
    columns = ["run", "epoch", "size", "loss", "train_top1_error", *VAL_COLUMNS]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    for number, run in enumerate(runs, 1):
        for epoch in run["log"]:
            values = [number, *(epoch[column] for column in columns[1:])]
            writer.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in values])
    return table.getvalue()


def animal_table(path: Path) -> dict[str, dict[str, str]]:
    """Return each classifier's top-1 accuracy by group, from the CSV of `reproduce.animals`."""
    table: dict[str, dict[str, str]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                entry = table.setdefault(row["group"], {"photographs": row["photographs"]})
                entry[row["classifier"]] = row["top1"]
    return table


def bundled_path(name: str) -> Path:
    return BUNDLED / f"{name}.safetensors"


def recorded_ten_crops(model: Network) -> dict[str, float | str] | None:
    """Return the ten-crop accuracy in the record "accuracy", or None if it has another network."""
    record = read_record(REPOSITORY / "figures" / "imagenet65k" / "accuracy")
    if record is None or record.inputs.get("checkpoint") != model.info["sha256"]:
        return None
    top1, top5 = (record.measured[f"top-{k} accuracy, %"]["10 crops"][0] for k in (1, 5))
    return {"protocol": "ten crops of 224 from 256, float32", "top1": top1, "top5": top5}


def bundled_reference(initial: dict | None) -> dict | None:
    """Return the bundled network a run started from by name and hash, else its `info` unchanged."""
    for path in sorted(BUNDLED.glob("*.safetensors")):
        if initial and read_metadata(path)["sha256"] == initial["sha256"]:
            return {"bundled": path.stem, "sha256": initial["sha256"]}
    return initial


def training_runs(model: Network) -> list[dict]:
    """Return the `info` of each training run since the bundled network it started from, if any."""
    runs = [model.info]
    while "config" in (runs[0].get("init") or {}):
        runs.insert(0, runs[0]["init"])
    return runs


def fit_head(model: Network, images: Images, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the pooling head on as many training images per class as an epoch has."""
    per_class = model.info["config"]["data"]["per_class"]
    rows = epoch_order(images.labels, per_class, torch.Generator())
    subset = images.subset(np.sort(rows))  # in the order on disk
    return fit_pooling_head(model, subset, precision=precision, progress=progress_bar)


@torch.inference_mode()
def head_accuracy(model: Network, images: Images) -> dict[str, float]:
    """Return the top-1 and top-5 accuracy of the pooling head, in percent."""
    images = images.aligned(model.wnids, model.classes)
    layer = f"conv{model.table[-1].number}"
    assert model.cam_head is not None
    weight, bias = (tensor.to(device_of(model)) for tensor in model.cam_head)
    k = min(5, len(bias))
    batches = np.array_split(np.arange(len(images)), -(-len(images) // 100))
    hits = []
    for rows in progress_bar(batches, desc="pooling head"):
        maps = trace(model, images.batch(rows).to(weight.device), until=layer)[layer]
        labels = torch.from_numpy(images.labels[rows]).to(weight.device)
        logits = maps.mean((2, 3)) @ weight.T + bias  # (N, classes)
        hits.append(logits.topk(k).indices == labels[:, None])
    hit = torch.cat(hits).float()
    return {
        "top1": round(100 * float(hit[:, 0].mean()), 2),
        "top5": round(100 * float(hit.any(1).float().mean()), 2),
    }


def measure(
    model: Network, images: Images, title: str, precision: str, views: int = 1
) -> dict[str, float | int | str]:
    """Return the accuracy in percent, with its protocol."""
    print(f"evaluating {title}, {precision}, {views} views")
    scores = evaluate(model, images, views=views, precision=precision, progress=progress_bar)
    crops = "one center crop" if views == 1 else "ten crops"
    protocol = f"{crops} of 224 from 256, {precision}"
    on_gpu = device_of(model).type == "cuda"
    if precision == "float32" and on_gpu and torch.backends.cudnn.allow_tf32:
        protocol += ", convolutions in TF32"
    return {
        "top1": round(100 - scores.top1, 2),
        "top5": round(100 - scores.top5, 2),
        "n": scores.n,
        "protocol": protocol,
    }


@torch.inference_mode()
def class_ranks(model: Network, images: Images) -> dict[str, list[int]]:
    """Return the rank of the true class for each validation image of Figure 7's classes."""
    images = images.aligned(model.wnids, model.classes)
    ranks = {}
    for wnid in FIG7_CLASSES:
        if wnid not in model.wnids:
            continue
        label = model.wnids.index(wnid)
        rows = (images.labels == label).nonzero()[0]
        logits = model(images.batch(rows).to(device_of(model)))
        rank = 1 + (logits > logits[:, label, None]).sum(1)
        ranks[model.classes[label]] = sorted(rank.tolist())
    return ranks


if __name__ == "__main__":
    sys.exit(main())
