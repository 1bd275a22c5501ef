"""python -m reproduce.release RUN/model.safetensors --data PATH: pack a trained network as the bundled one, and measure it.

Fits the pooling head of class activation mapping on the training images, packs to int8 (one scale an output channel), evaluates
before and after packing, and writes `zfnet/weights/NAME.safetensors` with its recipe and accuracy, and MODEL_CARD.md from what
was measured. No accuracy in the card is typed in.
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
from reproduce.core.record import read_record
from zfnet.analysis.transfer import pooling_head
from zfnet.checkpoint import BUNDLED, CheckpointError
from zfnet.data.cache import DataError, Images
from zfnet.data.folders import load_folder
from zfnet.forward import trace
from zfnet.model import Network, device_of
from zfnet.record import write_text
from zfnet.training.config import Config
from zfnet.training.evaluate import evaluate
from zfnet.training.setup import epoch_order, resolve_precision

TEMPLATE = Path(__file__).parent / "site" / "templates" / "model_card.md"
CARD = Path(__file__).resolve().parent.parent / "MODEL_CARD.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reproduce.release", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="the tree it was trained on; val/ is evaluated"
    )
    parser.add_argument("--name", default="imagenet65k")
    parser.add_argument("--precision", default="int8", choices=("float16", "int8"))
    parser.add_argument(
        "--ten-crops",
        action="store_true",
        help="measure the paper's ten crops too: ten times as long",
    )
    parser.add_argument(
        "--hardware",
        action="append",
        default=[],
        help="what it was trained on, for the card; once, or once for each cycle",
    )
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        help="a further line for the card's limits; may be repeated",
    )
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)

    progress = functools.partial(tqdm, leave=False)
    try:
        model = zfnet.load(options.checkpoint, folded=False).to(options.device)
        skip = (
            model.info.get("config", {}).get("data", {}).get("skip_unreadable", False)
        )  # as when it was trained
        load = functools.partial(load_folder, skip_unreadable=skip, progress=progress)
        train, images = (load(options.data / split) for split in ("train", "val"))
    except (CheckpointError, DataError) as error:
        parser.error(str(error))
    fast = resolve_precision(Config(), device_of(model)).precision
    cycles = len(cycles_of(model))
    if len(options.hardware) > 1 and len(options.hardware) != cycles:
        parser.error(
            f"--hardware is given {len(options.hardware)} times, for {cycles} cycles of training"
        )
    if model.info["data"] != train.digest:
        parser.error(
            f"{options.data} has other training images than those that {options.checkpoint.name} was trained on"
        )
    model.cam_head = fit_head(zfnet.load(options.checkpoint).to(options.device), train, fast)
    before = measure(model, images, "before packing", fast)
    target = BUNDLED / f"{options.name}.safetensors"
    trial = target.with_suffix(".trial.safetensors")  # measured before it replaces the bundled one
    try:
        zfnet.save(model, trial, precision=options.precision)
        packed = zfnet.load(trial).to(options.device)
    finally:
        trial.unlink(missing_ok=True)  # it would be loaded as a bundled one
    after = measure(packed, images, "after packing", fast)
    exact = after if fast == "float32" else measure(packed, images, "after packing", "float32")
    ten = (
        {"accuracy, ten crops": measure(packed, images, "after packing", fast, views=10)}
        if options.ten_crops
        else {}
    )

    model.info = {key: value for key, value in model.info.items() if key != "sha256"} | {
        "packing": options.precision,
        "val": images.digest,
        "accuracy": exact,
        "accuracy, packing": {"before packing": before, "after packing": after},
        "class ranks": ranks(packed, images),
        "pooling head": head_accuracy(packed, images),
        **ten,
    }
    zfnet.save(model, target, precision=options.precision)
    write_card(target, sorted(np.bincount(train.labels).tolist()), options.hardware, options.note)
    print(
        f"wrote {target.name}, {CARD.name}: top-1 {exact['top1']:.2f} %, top-5 {exact['top5']:.2f} %"
    )
    return 0


def write_card(released: Path, counts: list[int], hardware: list[str], notes: list[str]) -> None:
    """MODEL_CARD.md of a released network; `counts` are of training images, by class, smallest first."""
    card = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text()
    )
    model = zfnet.load(released)
    cycles = cycles_of(model)
    text = card.render(
        model=model,
        cycles=cycles,
        name=released.stem,
        ten=model.info.get("accuracy, ten crops") or ten_crops(model),
        hardware=hardware * (len(cycles) if len(hardware) == 1 else 1),
        notes=notes,
        megabytes=released.stat().st_size / 1e6,
        rows=list(zfnet.describe(model)),
        counts=counts,
    )
    write_text(CARD, text)


def ten_crops(model: Network) -> dict[str, float | str] | None:
    """The accuracy by ten crops that the figure "accuracy" has recorded of this very network, if it has."""
    record = read_record(CARD.parent / "figures" / "imagenet65k" / "accuracy")
    if record is None or record.inputs.get("checkpoint") != model.info["sha256"]:
        return None
    top1, top5 = (record.measured[f"top-{k} accuracy, %"]["10 crops"][0] for k in (1, 5))
    return {"protocol": "ten crops of 224 from 256, float32", "top1": top1, "top5": top5}


def cycles_of(model: Network) -> list[dict]:
    """What is known of each cycle of training, the first one first."""
    cycles = [model.info]
    while cycles[0].get("init"):
        cycles.insert(0, cycles[0]["init"])
    return cycles


def fit_head(model: Network, images: Images, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The pooling head, fitted on as many training images of each class as an epoch draws."""
    most = model.info["config"]["data"]["per_class"]
    chosen = np.sort(
        epoch_order(images.labels, most, torch.Generator())
    )  # in the order in which they lie on disk
    return pooling_head(
        model,
        images.subset(chosen),
        precision=precision,
        progress=functools.partial(tqdm, leave=False),
    )


@torch.inference_mode()
def head_accuracy(model: Network, images: Images) -> dict[str, float]:
    """Top-1 and top-5 of the pooling head alone, in percent."""
    images = images.aligned(model.wnids, model.classes)
    layer = f"conv{model.table[-1].number}"
    assert model.cam_head is not None
    weight, bias = (tensor.to(device_of(model)) for tensor in model.cam_head)
    hits = []
    for part in tqdm(
        np.array_split(np.arange(len(images)), -(-len(images) // 100)),
        desc="pooling head",
        leave=False,
    ):
        maps = trace(model, images.batch(part).to(weight.device), until=layer)[layer]
        labels = torch.from_numpy(images.labels[part]).to(weight.device)
        hits.append(
            (maps.mean((2, 3)) @ weight.T + bias).topk(min(5, len(bias))).indices == labels[:, None]
        )
    found = torch.cat(hits).float()
    return {
        "top1": round(100 * float(found[:, 0].mean()), 2),
        "top5": round(100 * float(found.any(1).float().mean()), 2),
    }


def measure(
    model: Network, images: Images, title: str, precision: str, views: int = 1
) -> dict[str, float | int | str]:
    """Accuracy in percent, with its protocol."""
    print(f"evaluating {title}, {precision}, {views} views")
    scores = evaluate(
        model,
        images,
        views=views,
        precision=precision,
        progress=functools.partial(tqdm, leave=False),
    )
    crops = "one centre crop" if views == 1 else "ten crops"
    protocol = f"{crops} of 224 from 256, {precision}"
    if (
        precision == "float32"
        and device_of(model).type == "cuda"
        and torch.backends.cudnn.allow_tf32
    ):
        protocol += ", convolutions in TF32"
    return {
        "top1": round(100 - scores.top1, 2),
        "top5": round(100 - scores.top5, 2),
        "n": scores.n,
        "protocol": protocol,
    }


@torch.inference_mode()
def ranks(model: Network, images: Images) -> dict[str, list[int]]:
    """The rank of the true class on each val image of the classes that Fig. 7 uses."""
    images = images.aligned(model.wnids, model.classes)
    found = {}
    for wnid in ("n02088094", "n02112018", "n02974003"):
        if wnid not in model.wnids:
            continue
        label = model.wnids.index(wnid)
        logits = model(images.batch((images.labels == label).nonzero()[0]).to(device_of(model)))
        found[model.classes[label]] = sorted(
            (logits > logits[:, label, None]).sum(1).add(1).tolist()
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
