"""Pack a trained network as a bundled one, and write its model card.

    python -m reproduce.release RUN/model.safetensors --data PATH

The command fits the pooling head for class activation mapping on the training images. It packs the
weights to int8 with one scale per output channel, and evaluates the network before and after
packing. It writes `zfnet/weights/NAME.safetensors` with the recipe and accuracy, and MODEL_CARD.md.
All accuracies in the card are measured.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import torch
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
from zfnet.forward import trace
from zfnet.model import Network, device_of
from zfnet.training.config import Config
from zfnet.training.evaluate import evaluate
from zfnet.training.sampling import epoch_order
from zfnet.training.setup import resolve_precision

TEMPLATE = REPOSITORY / "reproduce" / "site" / "templates" / "model_card.md"
CARD = REPOSITORY / "MODEL_CARD.md"
FIG7_CLASSES = ("n02088094", "n02112018", "n02974003")  # Afghan hound, Pomeranian, car wheel
progress_bar = functools.partial(tqdm, leave=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        model, train, val = _load(options)
    except (CheckpointError, DataError) as error:
        parser.error(str(error))
    runs = len(training_runs(model))
    if len(options.hardware) > 1 and len(options.hardware) != runs:
        parser.error(f"--hardware is given {len(options.hardware)} times, for {runs} training runs")
    if model.info["data"] != train.digest:
        parser.error(
            f"{options.checkpoint.name} was trained on other training images than those in "
            f"{options.data}"
        )
    accuracy = _pack(model, train, val, options)
    target = BUNDLED / f"{options.name}.safetensors"
    write_card(target, sorted(np.bincount(train.labels).tolist()), options.hardware, options.note)
    top1, top5 = accuracy["top1"], accuracy["top5"]
    print(f"wrote {target.name}, {CARD.name}: top-1 {top1:.2f} %, top-5 {top5:.2f} %")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reproduce.release", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="training data of the network; val/ is evaluated"
    )
    parser.add_argument("--name", default="imagenet65k")
    parser.add_argument("--precision", default="int8", choices=("float16", "int8"))
    parser.add_argument(
        "--ten-crops",
        action="store_true",
        help="also evaluate ten crops, which takes ten times as long",
    )
    parser.add_argument(
        "--hardware",
        action="append",
        default=[],
        help="hardware of the training for the card; once, or once per run",
    )
    parser.add_argument(
        "--note", action="append", default=[], help="limitation for the card; may be repeated"
    )
    parser.add_argument("--device", default="cpu")
    return parser


def _load(options: argparse.Namespace) -> tuple[Network, Images, Images]:
    """Load the network, and its training and validation images with the options of its training."""
    model = zfnet.load(options.checkpoint, folded=False).to(options.device)
    skip = model.info.get("config", {}).get("data", {}).get("skip_unreadable", False)
    load = functools.partial(load_folder, skip_unreadable=skip, progress=progress_bar)
    return model, load(options.data / "train"), load(options.data / "val")


def _pack(model: Network, train: Images, val: Images, options: argparse.Namespace) -> dict:
    """Pack a network into the bundled file with its measurements. Return its accuracy."""
    fast = resolve_precision(Config(), device_of(model)).precision
    model.cam_head = fit_head(zfnet.load(options.checkpoint).to(options.device), train, fast)
    before = measure(model, val, "before packing", fast)
    target = BUNDLED / f"{options.name}.safetensors"
    trial = target.with_suffix(".trial.safetensors")  # evaluated before it replaces the target
    try:
        zfnet.save(model, trial, precision=options.precision)
        packed = zfnet.load(trial).to(options.device)
    finally:
        trial.unlink(missing_ok=True)  # every file in this folder is a bundled network
    after = measure(packed, val, "after packing", fast)
    exact = after if fast == "float32" else measure(packed, val, "after packing", "float32")
    model.info = {key: value for key, value in model.info.items() if key != "sha256"} | {
        "packing": options.precision,
        "val": val.digest,
        "accuracy": exact,
        "accuracy, packing": {"before packing": before, "after packing": after},
        "class ranks": class_ranks(packed, val),
        "pooling head": head_accuracy(packed, val),
    }
    if options.ten_crops:
        ten = measure(packed, val, "after packing", "float32", views=10)
        model.info["accuracy, ten crops"] = ten
    zfnet.save(model, target, precision=options.precision)
    return exact


def write_card(released: Path, counts: list[int], hardware: list[str], notes: list[str]) -> None:
    """Write MODEL_CARD.md.

    Args:
        released: The packed network.
        counts: Training images per class, in ascending order.
        hardware: The hardware of the training: one text, or one per run.
        notes: Limitations.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    model = zfnet.load(released)
    runs = training_runs(model)
    text = environment.from_string(TEMPLATE.read_text()).render(
        model=model,
        runs=runs,
        name=released.stem,
        ten=model.info.get("accuracy, ten crops") or recorded_ten_crops(model),
        hardware=hardware * (len(runs) if len(hardware) == 1 else 1),
        notes=notes,
        megabytes=released.stat().st_size / 1e6,
        rows=list(zfnet.describe(model)),
        counts=counts,
    )
    write_text(CARD, text)


def recorded_ten_crops(model: Network) -> dict[str, float | str] | None:
    """Return the ten-crop accuracy in the record "accuracy", or None if it has another network."""
    record = read_record(CARD.parent / "figures" / "imagenet65k" / "accuracy")
    if record is None or record.inputs.get("checkpoint") != model.info["sha256"]:
        return None
    top1, top5 = (record.measured[f"top-{k} accuracy, %"]["10 crops"][0] for k in (1, 5))
    return {"protocol": "ten crops of 224 from 256, float32", "top1": top1, "top5": top5}


def training_runs(model: Network) -> list[dict]:
    """Return the `info` of each training run, in order."""
    runs = [model.info]
    while runs[0].get("init"):
        runs.insert(0, runs[0]["init"])
    return runs


def fit_head(model: Network, images: Images, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the pooling head on as many training images per class as an epoch has."""
    per_class = model.info["config"]["data"]["per_class"]
    rows = epoch_order(images.labels, per_class, torch.Generator())
    subset = images.subset(np.sort(rows))  # in the order of the file
    return fit_pooling_head(model, subset, precision=precision, progress=progress_bar)


@torch.inference_mode()
def head_accuracy(model: Network, images: Images) -> dict[str, float]:
    """Return the top-1 and top-5 accuracy of the pooling head in percent."""
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
    """Return the accuracy in percent, and its protocol."""
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
    """Return the rank of the true class for the validation images of the classes in Figure 7."""
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
