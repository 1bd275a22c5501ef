"""What Tables 2 and 3 share: their rows, one recipe for all of them, and trainings that are kept and continued.

A finished row is one file in the cache: what its network made of every validation image. It is named by the recipe and the
images, not by the trainer's source: hours of training are not thrown away for a comment. The commit stands in it instead.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import zfnet
from reproduce import REPOSITORY
from reproduce.core.context import Context
from reproduce.core.record import environment
from zfnet.data.cache import Images, cache_dir, digest
from zfnet.data.folders import class_names, load_files, scan
from zfnet.data.io import atomic_write
from zfnet.model import Network
from zfnet.training.config import Config, load_config, to_dict
from zfnet.training.evaluate import predict
from zfnet.training.loop import DivergedError, train
from zfnet.training.sampling import epoch_order
from zfnet.training.setup import resolve_precision

RECIPE = REPOSITORY / "configs" / "ablations.yaml"
PAPER_RECIPE = REPOSITORY / "configs" / "imagenet.yaml"
WIDE = "layers 3-5 of 512, 1024, 512"
ROWS: dict[str, dict] = {  # Table 3 from top to bottom: what each row changes of the recipe's model
    "AlexNet": {"arch": "alexnet"},
    "AlexNet without layers 3, 4": {"arch": "alexnet", "drop_layers": (3, 4)},
    "AlexNet without layer 7": {"arch": "alexnet", "drop_layers": (7,)},
    "AlexNet without layers 6, 7": {"arch": "alexnet", "drop_layers": (6, 7)},
    "AlexNet without layers 3, 4, 6, 7": {"arch": "alexnet", "drop_layers": (3, 4, 6, 7)},
    "AlexNet, layers 6, 7 of 2048": {"arch": "alexnet", "fc_units": 2048},
    "AlexNet, layers 6, 7 of 8192": {"arch": "alexnet", "fc_units": 8192},
    "ZFNet": {},
    "ZFNet, layers 6, 7 of 2048": {"fc_units": 2048},
    "ZFNet, layers 6, 7 of 8192": {"fc_units": 8192},
    f"ZFNet, {WIDE}": {"channels": (512, 1024, 512)},
    f"ZFNet, {WIDE}, and 6, 7 of 8192": {"channels": (512, 1024, 512), "fc_units": 8192},
}
NO_TREE = "No tree of images to train on; give ImageNet or a part of it with --data."
VERSION = 4  # of what a row holds, to be raised when that changes
KEEP = 240.0  # seconds between two states of a training: writing up to 1 GB takes as long as an epoch on a GPU
ENSEMBLE = (
    "AlexNet",
    "ZFNet",
    f"ZFNet, {WIDE}",
)  # the networks of Table 2, whose probabilities are kept


@dataclass(frozen=True)
class Plan:
    """The size of the trainings at one scale.

    `classes` are evenly chosen (0: all), and `per_class` images of each are trained on per epoch (0: all). Images are kept
    at `side` pixels and cropped to `size`. Table 3 trains each row with up to `seeds` seeds, and starts no further seed
    after `minutes`; Table 2 averages `views` crops per image. `precision` is that of the training.
    """

    scale: str
    classes: int
    per_class: int
    side: int
    size: int
    epochs: int
    batch: int
    lr: float
    precision: str
    seeds: int
    minutes: float
    views: int


PLANS = {  # --scale; `paper` is the recipe of configs/imagenet.yaml, the others that of configs/ablations.yaml
    "paper": Plan(
        "paper", classes=0, per_class=0, side=256, size=224, epochs=70, batch=128, lr=1e-2, precision="float32", seeds=5,
        minutes=0, views=10,
    ),
    "subset": Plan(
        "subset", classes=0, per_class=40, side=146, size=128, epochs=20, batch=128, lr=1e-2, precision="auto", seeds=5,
        minutes=20, views=10,
    ),
    "smoke": Plan(
        "smoke", classes=100, per_class=40, side=128, size=112, epochs=32, batch=64, lr=2e-2, precision="auto", seeds=1,
        minutes=0, views=1,
    ),
}  # fmt: skip
SETTINGS = {
    "plans": {scale: asdict(plan) for scale, plan in PLANS.items()},
    "rows": ROWS,
}  # part of the figures' config


@dataclass(frozen=True, eq=False)
class Row:
    """A trained row: errors in percent, and what it made of the N validation images.

    `rank` (N,) is the place of the true class among all, from 1, and `known` (M,) that of images trained on, without dropout;
    `probability` (N, classes) float32, the mean over the plan's views, of the networks that ensembles are made of, else
    empty; `label` (N,); `about` says how it was made. Of a training that diverged every rank is beyond the last and the
    fifth, and `about["diverged"]` says where.
    """

    rank: np.ndarray
    known: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    about: dict

    def error(self, k: int = 1) -> float:
        return 100 * float((self.rank > k).mean())

    def train_error(self) -> float:
        return 100 * float((self.known > 1).mean())


def plan_for(ctx: Context) -> Plan:
    """The plan of `--scale`; without it, `subset` on a GPU and `smoke` on a CPU. `paper` takes weeks and must be requested."""
    return PLANS[ctx.requested_scale or ("subset" if ctx.device_type == "cuda" else "smoke")]


def recipe(plan: Plan, name: str, seed: int) -> Config:
    """The configuration of a row: the recipe of the plan's scale at the plan's size, with the row's changes of the model."""
    config = load_config(PAPER_RECIPE if plan.scale == "paper" else RECIPE)
    (stage,) = config.stages
    return replace(
        config, seed=seed, precision=plan.precision,
        model=replace(config.model, size=plan.size, **ROWS[name]),
        data=replace(config.data, per_class=plan.per_class),
        optim=replace(config.optim, batch=plan.batch, lr=plan.lr),
        stages=(replace(stage, epochs=plan.epochs, size=plan.size, side=plan.side),),
        snapshots=(),
    )  # fmt: skip


def load(ctx: Context, plan: Plan, split: str) -> Images:
    """The images of a split, of as many evenly chosen classes as the plan has."""
    assert ctx.tree is not None
    root = ctx.tree / split
    folders, files, labels = scan(root)
    chosen = np.arange(len(folders))
    if plan.classes and plan.classes < len(folders):
        chosen = np.linspace(0, len(folders) - 1, plan.classes).astype(int)
    kept = np.flatnonzero(np.isin(labels, chosen))
    wnids, names = [folders[i] for i in chosen], class_names(folders)
    return load_files(
        root, [files[i] for i in kept], np.searchsorted(chosen, labels[kept]), [names[i] for i in chosen], wnids,
        side=plan.side, size=plan.size, progress=ctx.progress,
    )  # fmt: skip


def trained(ctx: Context, plan: Plan, images: dict[str, Images], name: str, seed: int) -> Row:
    """A row: read from the cache, else trained, or its training continued. `images` are of "train" and "val"."""
    config = recipe(plan, name, seed)
    key = digest(
        json.dumps(to_dict(config)),
        plan.views,
        images["train"].digest,
        images["val"].digest,
        VERSION,
    )
    folder = cache_dir() / f"row-{key[:20]}"
    path = folder.with_suffix(".npz")
    if not path.exists():
        diverged = trained_in(folder, config, images, ctx.device)
        arrays, about = (
            lost(plan, images, folder) if diverged else _measure(ctx, plan, images, name, folder)
        )
        precision = resolve_precision(config, torch.device(ctx.device)).precision
        about |= {
            "name": name,
            "plan": asdict(plan),
            "diverged": diverged,
            "precision": precision,
            **environment(ctx.device),
        }
        keep(path, about=np.array(json.dumps(about)), **arrays)
        shutil.rmtree(folder)  # up to 2 GB of weights and momenta, which no figure reads
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        return Row(
            **{name: file[name] for name in ("rank", "known", "probability", "label")}, about=about
        )


def trained_in(folder: Path, config: Config, images: dict[str, Images], device: str) -> str:
    """Train in a folder, or continue there. Returns where the training diverged, if it did: it would do so again."""
    resume = (folder / "state.safetensors").exists()
    with torch.enable_grad():
        try:
            train(
                config,
                lambda split, side: images[split],
                folder,
                resume=resume,
                device=device,
                keep_every=KEEP,
            )
        except DivergedError as error:
            return str(error).partition(";")[0]
    return ""


def keep(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to a file of the cache, whole or not at all."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def lost(plan: Plan, images: dict[str, Images], folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The row of a training that diverged: wrong on every image. Its log has also the epochs after the last state kept."""
    val, epoch = images["val"], trained_on(plan, images["train"])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    seconds = sum(len(epoch) // plan.batch * plan.batch / line["images_per_second"] for line in log)
    n, classes, about = (
        len(val),
        len(val.classes),
        {"epochs": len(log), "log": log, "seconds": seconds},
    )
    probability = np.full((n, classes), 1 / classes, dtype=np.float32)
    rank, known = np.full(n, classes + 5), np.full(min(n, len(epoch)), classes + 5)
    return {"rank": rank, "known": known, "probability": probability, "label": val.labels}, about


def _measure(
    ctx: Context, plan: Plan, images: dict[str, Images], name: str, folder: Path
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a trained network's row and what is to be said of it, in float32: bfloat16 makes ties of the logits."""
    model = zfnet.load(folder / "model.safetensors", folded=False).to(ctx.device)
    val = images["val"]
    some = images["train"].subset(trained_on(plan, images["train"])[: len(val)])
    known, found = (probabilities(model, part, 1) for part in (some, val))
    kept = np.zeros((0, found.shape[1]), dtype=np.float32)
    if name in ENSEMBLE:
        kept = found if plan.views == 1 else probabilities(model, val, plan.views)
    about = {
        "epochs": model.info["epochs"], "log": model.info["log"], "seconds": model.info["seconds"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    rank, known = ranks(found, val.labels), ranks(known, some.labels)
    return {"rank": rank, "known": known, "probability": kept, "label": val.labels}, about


def trained_on(plan: Plan, images: Images) -> np.ndarray:
    """The images of an epoch, shuffled: of large classes only a part, as in training."""
    return epoch_order(images.labels, plan.per_class, torch.Generator().manual_seed(0))


def probabilities(model: Network, images: Images, views: int) -> np.ndarray:
    """The mean probability over the views of each image: (N, classes) float32."""
    parts = np.array_split(np.arange(len(images)), -(-len(images) // 100))
    found = torch.cat([p.cpu() for p in predict(model, images, parts, views=views)])
    return (found / views).numpy()


def ranks(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The place of the true class of each image, 1 the most probable: (N, classes), (N,) -> (N,). Of equals the lower class."""
    own = probability[np.arange(len(label)), label][:, None]
    before = np.arange(probability.shape[1]) < label[:, None]
    return 1 + ((probability > own) | ((probability == own) & before)).sum(1)


def paper_scale(row: Row, size: int) -> str:
    """What the paper's 70 epochs of 1.28 million images of 224 pixels would take, by the speed that was measured at `size`."""
    speed = speed_of(row)
    if not speed:
        return "ZFNet finished no epoch, by which the paper's scale could be timed."
    with torch.device("meta"):
        work, paper = (
            sum(layer.macs for layer in zfnet.describe(zfnet.zfnet(1000, size=n)))
            for n in (size, 224)
        )
    hours = 70 * 1.28e6 / speed / 3600 * paper / work
    return (
        f"The paper's 70 epochs of 1.28 million images of 224 pixels would take ZFNet {hours:,.0f} h: the {speed:.0f} images/s "
        f"measured at {size} pixels, in its last epoch on {row.about['device']}, scaled by the multiply-adds."
    )


def diverged(rows: dict[str, list[Row]]) -> dict[str, str]:
    """Where the trainings ended that diverged, by row and seed."""
    found = {
        f"{name}, seed {seed}": row.about["diverged"]
        for name, of in rows.items()
        for seed, row in enumerate(of)
    }
    return {name: where for name, where in found.items() if where}


def speed_of(row: Row) -> float:
    """Images a second in the last epoch of a training, 0 where it finished none."""
    return row.about["log"][-1]["images_per_second"] if row.about["log"] else 0.0
