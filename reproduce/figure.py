"""What a figure is: declared inputs, a slow `compute` that is cached, a fast `draw` that knows no model, a record.

A script in `reproduce/paper/`, `lectures/` or `bench/` holds `FIGURE = Figure(...)`, `compute(ctx) -> Result` and
`draw(result) -> pictures`, by file name: matplotlib figures, or for a GIF its frames (N, H, W, 3) uint8.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import matplotlib.figure
import numpy as np
import torch

import reproduce.bench
import reproduce.lectures
import reproduce.paper
import zfnet
from reproduce import keys
from reproduce.digits import Digits
from zfnet import plot
from zfnet.checkpoint import CheckpointError
from zfnet.data import no_progress
from zfnet.data.benchmarks import (
    DatasetNotFoundError,
    load_caltech101,
    load_caltech256,
    load_voc2012,
)
from zfnet.data.cache import DataError, Images, cache_dir, digest
from zfnet.data.folders import load_folder, scan
from zfnet.data.images import ImageError
from zfnet.data.io import atomic_write
from zfnet.data.samples import load_samples
from zfnet.graph import UnknownLayer, UnsupportedNetwork, chain
from zfnet.model import Network, device_of
from zfnet.networks import load_network
from zfnet.ranking import TopActivations
from zfnet.record import (
    SCALES,
    Record,
    environment,
    read_record,
    sources_changed,
    write_figure,
    write_gif,
    write_record,
)
from zfnet.tensor_file import sha256
from zfnet.top import top_activations
from zfnet.training.distributed import ParallelError
from zfnet.training.evaluate import first_dense

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = "samples"
DEFAULT_MODEL = (
    "imagenet65k"  # the bundled network: its results go into folders without the name of a network
)
PAPER = {
    "conv1": 96,
    "conv2": 256,
    "conv3": 384,
    "conv4": 384,
    "conv5": 256,
    "fc6": 4096,
    "fc7": 4096,
}  # Fig. 3: maps, units
SEARCH_VERSION = (
    1  # raise it when the shared search of the strongest activations returns something else
)


class DirtyTreeError(RuntimeError):
    """A committed record would be made by sources that no commit holds."""


# Of the user's input, from which nothing can be made.
WRONG_INPUT = (
    CheckpointError,
    DataError,
    DirtyTreeError,
    ImageError,
    ParallelError,
    UnknownLayer,
    UnsupportedNetwork,
)
DATASETS: dict[
    str, Callable
] = {  # that a figure may have of its own: (torchvision's folder, progress) -> images
    "caltech101": lambda root, progress: load_caltech101(root, progress=progress),
    "caltech256": lambda root, progress: load_caltech256(root, progress=progress),
    "voc2012 train": lambda root, progress: load_voc2012(root, "train", progress=progress),
    "voc2012 val": lambda root, progress: load_voc2012(root, "val", progress=progress),
    "digits": lambda root, progress: Digits.load(root),  # and the network of configs/mnist.yaml
}


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper, or a picture of a lecture.

    The cache key is made of the id, `version`, `config`, `seed`, the hashes of `inputs` and the contents of `files`, never of
    source text. Whoever changes what `compute` returns raises `version`, unless `config` or `seed` changed, which suffices.
    Every number that decides a result and that a reader may want to change (image counts, sizes, strides, steps) belongs in
    `config`; a module constant that changes a result wants a new `version` as well. `draw` is not in the key: delete a picture
    to have it drawn again from the kept arrays.

    `inputs` are of "model", "images", "top", "tree", "pretraining", "snapshots", "device" (what it measures is not the same on
    a CPU and a GPU) and the names in DATASETS; `files` are the YAML files that it reads, relative to the script; `budget` is
    seconds at sample scale; `paper` holds the paper's numbers, `config` ours; `alone`: only by its id. `corpus` names the data
    set of a figure that has its own, and the folder of its result; else that is the corpus of the run.

    `trains` says whether the figure trains networks. `scales` lists the values of `--scale` that it knows. `labels` says that
    it needs images with labels, which the sample photographs do not have. `network` is what it needs of a network: "any"
    torchvision model, a "chain" that the deconvnet can invert, or a network of this package, "zfnet".
    """

    id: str
    title: str
    claim: str
    inputs: tuple[str, ...]
    seed: int
    budget: float
    paper: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    alone: bool = False
    corpus: str = ""
    version: int = 1
    trains: bool = False
    scales: tuple[str, ...] = ()
    labels: bool = False
    network: str = "any"

    @property
    def uses_model(self) -> bool:
        """Whether the result depends on the network of `--model`."""
        return bool({"model", "top", "snapshots"} & set(self.inputs))


@dataclass(frozen=True)
class Result:
    """What `compute` returns: arrays to draw from, numbers for the record, a verdict on the claim, and n.

    `scale` is given where the inputs do not say it: by figures with a data set of their own.
    """

    arrays: dict[str, np.ndarray]
    measured: dict[str, Any]
    verdict: str
    n: int
    note: str = ""
    scale: str = ""


class UndeclaredInput(RuntimeError):
    """A script used an input that its FIGURE does not declare, so its cache key would be wrong."""


class Context:
    """The inputs of a run: a network, a corpus of images, and the search that several figures share.

    `corpus` names the images: "samples", or the folder's name. `datasets` is the folder where torchvision keeps its data
    sets. `for_figure` restricts it to what a figure declares. `weights` is a file, or "random", for a network of torchvision.
    `requested_scale` is the value of `--scale`: None lets each figure choose what the device allows.
    """

    def __init__(
        self, model: str, data: str | None, device: str = "cpu", progress: Callable = no_progress, datasets: str | None = None,
        weights: str | None = None, scale: str | None = None,
    ):  # fmt: skip
        self.model_name, self.device, self.progress = model, device, progress
        self.data, self.weights, self.requested_scale = data, weights, scale
        self._opened: dict[str, Any] = {}
        self._given_datasets = datasets
        self.datasets = Path(datasets).expanduser() if datasets else cache_dir() / "datasets"
        self.corpus = SAMPLES if data is None else corpus_name(data)
        self.declared: tuple[str, ...] | None = None
        self._whole = self

    def for_figure(self, figure: Figure) -> Context:
        limited = copy.copy(self)
        limited.declared = figure.inputs
        return limited

    def _use(self, name: str) -> Any:
        if self.declared is not None and name not in self.declared:
            raise UndeclaredInput(f"the figure uses {name!r}, but declares only {self.declared}")
        return getattr(self._whole, f"_{name}")  # opened once for all figures

    @property
    def model(self) -> Network:
        """The network under analysis, folded, in eval mode."""
        return self._use("model")

    @property
    def departures(self) -> str:
        """What the network has otherwise than the paper's, read off it, for the notes of figures."""
        if self.foreign:
            return f"This network is not the paper's, but torchvision's {self.network_name}. "
        if self.model.arch != "zfnet":
            return f"This network is not the paper's, but {self.model.arch}. "
        there = dict(self.model.named_children())
        found = [f"no layer {name[-1]}" for name in PAPER if name not in there]
        for name, size in PAPER.items():
            own = len(cast(torch.Tensor, there[name].weight)) if name in there else size
            found += [f"{own:,} {'maps' if name[0] == 'c' else 'units'} in layer {name[-1]}"] * (
                own != size
            )
        if self.tied:
            found.append("a first dense layer that sees only each map's mean, not its places")
        if not any(name.startswith("norm") for name, _ in self.model.named_children()):
            found.append("no contrast normalisation")
        return f"Unlike the paper's, this network has {', '.join(found)}. " if found else ""

    @property
    def tied(self) -> bool:
        """Whether layer 6 has the same weight at all places of a map: the mean of its maps is all that it sees."""
        if self.foreign:
            return False
        layer = first_dense(self.model)
        weight = layer.weight.view(layer.out_features, self.model.table[-1].channels, -1)
        return weight.shape[2] > 1 and bool((weight == weight[..., :1]).all())

    @property
    def images(self) -> Images:
        """The corpus, labelled by the network's outputs; labels are -1 for the sample photographs."""
        return self._use("images")

    @property
    def top(self) -> TopActivations:
        """The nine strongest activations of every feature of layers 1-5 over the corpus."""
        return self._use("top")

    @property
    def pretraining(self) -> Images | None:
        """The images that the network was trained on, `train/` of the tree, at 128 pixels; None where no tree is given."""
        return self._use("pretraining")

    @property
    def tree(self) -> Path | None:
        """The tree of images with train/ and val/, for figures that train; None where none is given."""
        return self._use("tree")

    @property
    def snapshots(self) -> dict[int, Path]:
        """The networks that the training run of the model kept, by epoch; none where the model lies in no run."""
        return self._use("snapshots")

    def dataset(self, name: str) -> Any:
        """A data set of DATASETS, or None where it is not in the folder `datasets`."""
        if self.declared is not None and name not in self.declared:
            raise UndeclaredInput(f"the figure uses {name!r}, but declares only {self.declared}")
        if name not in self._opened:
            try:
                self._opened[name] = DATASETS[name](self.datasets, self.progress)
            except DatasetNotFoundError:
                self._opened[name] = None
        return self._opened[name]

    @property
    def network_name(self) -> str:
        """The name of the network for folders and records: imagenet for runs/imagenet/model.safetensors, resnet18 for
        torchvision:resnet18."""
        if ":" in self.model_name:
            return self.model_name.rpartition(":")[2]
        path = Path(self.model_name).expanduser()
        return path.resolve().parent.name if path.stem == "model" else path.stem

    @property
    def checkpoint(self) -> str:
        """The hash of the network's weights."""
        return self._whole._model.info["sha256"]

    @property
    def foreign(self) -> bool:
        """Whether the network is one of torchvision's."""
        return self.model_name.startswith("torchvision:")

    @functools.cached_property
    def _model(self) -> Network:
        model = cast(Network, load_network(self.model_name, self.weights))
        if self.foreign:
            trained_on = (
                1_281_167 if self.weights is None else 0
            )  # images; unknown for given weights
            model.info = {
                "sha256": sha256(model.state_dict(), {"name": self.model_name}),
                "training_images": trained_on,
            }
        return model.to(self.device)

    @functools.cached_property
    def _images(self) -> Images:
        if self.data is None:
            return load_samples()
        root = imagenette() if self.data == "imagenette" else Path(self.data).expanduser()
        root = root / "val" if (root / "val").is_dir() else root
        images = load_folder(root, progress=self.progress)
        return images.aligned(self._model.wnids, self._model.classes)

    @functools.cached_property
    def _top(self) -> TopActivations:
        path = (
            cache_dir()
            / f"top-{digest(self._model.info['sha256'], self._images.digest, SEARCH_VERSION)[:20]}.safetensors"
        )
        search = functools.partial(
            top_activations,
            self._model,
            self._images,
            groups=self._images.groups,
            progress=self.progress,
            state=path,
        )
        try:
            return search()
        except CheckpointError:  # damaged: search again
            path.unlink()
            return search()

    @functools.cached_property
    def _pretraining(self) -> Images | None:
        if self._tree is None:
            return None
        return load_folder(self._tree / "train", side=128, size=112, progress=self.progress)

    @functools.cached_property
    def tree_size(self) -> tuple[int, int, int]:
        """How many classes, training and validation images the tree has, from its listing. Raises DataError."""
        assert self._tree is not None
        (classes, train, _), (_, val, _) = (scan(self._tree / split) for split in ("train", "val"))
        return len(classes), len(train), len(val)

    def check(self) -> None:
        """Check what the user named before anything is computed. Raises a WRONG_INPUT error for what cannot be used."""
        if self.model_name != DEFAULT_MODEL or self.weights:
            _ = self._model  # loads it
        for path in (self.data if self.data != "imagenette" else None, self._given_datasets):
            if path and not Path(path).expanduser().is_dir():
                raise DataError(f"{path}: no such folder")
        if self.requested_scale == "paper":
            self._check_paper_scale()

    def _check_paper_scale(self) -> None:
        needs = "--scale paper needs ImageNet 2012: 1,000 classes, over 1,200,000 training and 50,000 validation images"
        if self._tree is None:
            raise DataError(f"{needs}; give its folder with --data")
        classes, train, val = self.tree_size
        if (classes, val) != (1000, 50_000) or train < 1_200_000:
            raise DataError(
                f"{needs}; {self._tree} has {classes:,} classes, {train:,} training and {val:,} validation images. "
                "Leave --scale out, or take --scale subset or smoke"
            )

    @functools.cached_property
    def _tree(self) -> Path | None:
        if not self.data or self.data == "imagenette":
            return None
        root = Path(self.data).expanduser()
        return root.parent if root.name == "val" else root

    @functools.cached_property
    def _snapshots(self) -> dict[int, Path]:
        folder = Path(self.model_name).expanduser().parent / "snapshots"
        return {
            int(path.stem.removeprefix("epoch-")): path
            for path in sorted(folder.glob("epoch-*.safetensors"))
        }

    @property
    def kind(self) -> str:
        """ "cuda" on a GPU, else "cpu": how large a figure that trains or measures is made depends on it."""
        return "cuda" if torch.device(self.device).type == "cuda" else "cpu"

    @property
    def scale(self) -> str:
        """The scale of a result that uses the images: the paper's, a subset, or the sample photographs."""
        if self.data is None:
            return "samples"
        return (
            "paper"
            if len(self._images) == 50_000 and self._model.info["training_images"] > 1_200_000
            else "subset"
        )

    def identity(self, figure: Figure) -> dict[str, str]:
        """The hashes of a figure's declared inputs, for its cache key and its record."""
        identity = {"corpus": figure.corpus or self.corpus}
        if figure.uses_model and self.model_name != DEFAULT_MODEL:
            identity["model"] = self.model_name if self.foreign else self.network_name
        if figure.scales and self.requested_scale:
            identity["plan"] = self.requested_scale
        if {"model", "top"} & set(figure.inputs):
            identity["checkpoint"] = self._model.info["sha256"]
        if {"images", "top"} & set(figure.inputs):
            identity["data"] = self._images.digest
        if "tree" in figure.inputs:
            identity["tree"] = listing(self._tree) if self._tree else "absent"
        if "device" in figure.inputs:
            identity["device"] = torch.device(self.device).type
        if "snapshots" in figure.inputs:
            hashes = [
                (epoch, zfnet.load(path).info["sha256"]) for epoch, path in self._snapshots.items()
            ]
            identity["snapshots"] = digest(*hashes) if hashes else "absent"
        own = {name: self.dataset(name) for name in DATASETS if name in figure.inputs}
        if "pretraining" in figure.inputs and any(own.values()):  # else nothing is compared with it
            own["pretraining"] = self._pretraining
        return identity | {name: found.digest if found else "absent" for name, found in own.items()}


def conv_weight(model: Network, layer: str) -> torch.Tensor:
    """The weights of a convolutional layer (maps, slices, rows, columns), on the CPU, by its name in the chain.

    A step has a layer's name where its output is the layer's activation: mostly the ReLU after the convolution.
    """
    weight = None
    for step in chain(model, torch.zeros(1, 3, model.size, model.size, device=device_of(model))):
        weight = step.module.weight if isinstance(step.module, torch.nn.Conv2d) else weight
        if step.layer == layer and weight is not None:
            return weight.detach().cpu()
    raise UnknownLayer(f"no convolutional layer {layer!r}")


def unsuitable_network(figure: Figure, context: Context) -> str:
    """Why a figure cannot be made with a network of torchvision, in a sentence; "" where it can."""
    if not (figure.uses_model and context.foreign) or figure.network == "any":
        return ""
    name = context.network_name
    if figure.network == "zfnet":
        return f"It needs a network of this package, and {name} is torchvision's."
    try:
        chain(
            context.model,
            torch.zeros(1, 3, context.model.size, context.model.size, device=context.device),
        )
    except UnsupportedNetwork as error:
        return f"It needs a network that the deconvnet can invert: {error}."
    return ""


def result_folder(figure: Figure, context: Context, out: Path) -> Path:
    """The folder of a figure's result: `out/<corpus>/<id>`, or `out/<corpus>@<network>/<id>` for another network.

    Only figures that use the network have a folder of their own for it. Two networks of one name do not mix: where the
    folder holds results of another checkpoint, the first eight digits of this checkpoint's hash are added to the name.
    """
    folder = out / (figure.corpus or context.corpus)
    if figure.uses_model and context.model_name != DEFAULT_MODEL:
        folder = folder.with_name(f"{folder.name}@{context.network_name}")
        checkpoint = context.checkpoint
        records = [read_record(path.parent) for path in folder.glob("*/result.json")]
        if any(
            record and record.inputs.get("checkpoint", checkpoint) != checkpoint
            for record in records
        ):
            folder = folder.with_name(f"{folder.name}-{checkpoint[:8]}")
    return folder / figure.id


def known_inputs(context: Context, figure: Figure, corpus: str, hash_data: bool) -> dict[str, str]:
    """The hashes of a figure's inputs that can be computed here, to compare with a committed record.

    Args:
        context: the network and the data.
        figure: the figure whose inputs are hashed.
        corpus: the corpus of the record.
        hash_data: hash the data too, not only the network. Data that are missing are left out.
    """
    known = {"corpus": corpus}
    if hash_data:
        known |= context.identity(figure)
    elif {"model", "top"} & set(figure.inputs):
        known["checkpoint"] = context.model.info["sha256"]
    return {name: value for name, value in known.items() if value != "absent"}


def listing(tree: Path) -> str:
    """A hash of the names and sizes of a tree's files, of which a figure that trains decodes only those that it needs."""
    files = [file for split in ("train", "val") for file in scan(tree / split)[1]]
    return digest(*((file.relative_to(tree), file.stat().st_size) for file in files))


def imagenette() -> Path:
    """Imagenette's validation images, downloaded by torchvision into the cache the first time."""
    from torchvision.datasets import Imagenette

    root = cache_dir() / "imagenette"
    if not root.is_dir():
        partial = cache_dir() / f"imagenette-{os.getpid()}.partial"  # renamed when it is whole
        partial.mkdir()
        try:
            Imagenette(str(partial), split="val", size="320px", download=True)
            os.replace(partial, root)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"Imagenette could not be downloaded ({error}); give DATA=/path/to/imagenet instead"
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root / "imagenette2-320"


def corpus_name(data: str) -> str:
    """The name of a tree of images: its folder's, or that of the folder above where it is called val."""
    path = Path(data).expanduser().resolve()
    name = (path.parent if path.name == "val" else path).name.lower()
    return f"{name}-folder" if name == SAMPLES else name


def discover() -> dict[str, ModuleType]:
    """Every script with a FIGURE, by id, in the paper's order of file names."""
    scripts = {}
    for package in (reproduce.paper, reproduce.lectures, reproduce.bench):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            if hasattr(module, "FIGURE"):
                scripts[module.FIGURE.id] = module
    return scripts


@dataclass(frozen=True)
class Outcome:
    """A line of the closing table. `reason` says why nothing was made now, where the record is missing or an earlier one."""

    record: Record
    seconds: float
    cached: bool
    folder: Path
    reason: str = ""
    ran: bool = True


def is_committed(folder: Path) -> bool:
    """Whether git tracks files in a folder."""
    if not folder.is_dir():
        return False
    listed = subprocess.run(
        ["git", "ls-files", "."], cwd=folder, capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip())


def run(
    script: ModuleType, context: Context, out: Path, force: bool = False, allow_dirty: bool = False
) -> Outcome:
    """Make one figure in its `result_folder`, unless a record with the same key and its pictures are there.

    Raises:
        DirtyTreeError: the corpus is committed, the sources have uncommitted changes, and `allow_dirty` is not set.
    """
    figure: Figure = script.FIGURE
    began = time.perf_counter()
    folder = result_folder(figure, context, out)
    inputs = context.identity(figure)
    hashes = keys.file_hashes(figure, script_folder(script))
    key = keys.key(figure, inputs, hashes)
    prior = read_record(folder)
    if (
        prior
        and not force
        and prior.key == key
        and all((folder / name).exists() for name in prior.files)
    ):
        return _kept(prior, folder, began)

    if not allow_dirty and is_committed(folder.parent) and sources_changed():
        raise DirtyTreeError(
            f"{figure.id}: sources have uncommitted changes, and {folder.parent.name} is a committed corpus; "
            "commit the changes, or pass --allow-dirty"
        )
    arrays = folder / "arrays.npz"
    result = None if force else _load(arrays, key)
    if result is None:
        torch.manual_seed(figure.seed)
        with torch.no_grad():
            result = _computed(script, context)
        if prior and result.verdict == "not run":
            return _kept(prior, folder, began, reason=result.note, ran=False)
        if prior and prior.verdict != "not run":
            smaller = SCALES.index(_scale(result, figure, context)) > SCALES.index(prior.scale)
            if smaller and not force:
                scale = _scale(result, figure, context)
                return _kept(
                    prior,
                    folder,
                    began,
                    reason=f"The record's scale is larger than {scale}; --force replaces it.",
                )
        _save(arrays, key, result)
    with plot.style():
        empty = result.verdict == "not run" and not result.arrays
        pictures: dict[str, matplotlib.figure.Figure | np.ndarray] = (
            {} if empty else script.draw(result)
        )
        for name, picture in pictures.items():
            if isinstance(picture, np.ndarray):
                write_gif(picture, folder / name)
            else:
                for quality in (78, 64, 50):
                    write_figure(picture, folder / name, quality=quality)
                    if (folder / name).stat().st_size <= 400_000:
                        break
    for stale in (
        path for kind in ("png", "jpg", "gif") for path in folder.glob(f"*.{kind}")
    ):  # of an earlier version
        if stale.name not in pictures:
            stale.unlink()
    record = Record(
        id=figure.id, title=figure.title, claim=figure.claim,
        scale=_scale(result, figure, context),
        verdict=result.verdict, measured=result.measured, paper=figure.paper, n=result.n, seed=figure.seed,
        note=result.note, inputs=inputs, config=figure.config, key=key, files=list(pictures),
        seconds=round(time.perf_counter() - began, 1), environment=environment(context.device),
        version=figure.version, file_hashes=hashes,
    )  # fmt: skip
    write_record(record, folder)
    return replace(_kept(record, folder, began), cached=False)


def _kept(
    record: Record, folder: Path, began: float, reason: str = "", ran: bool = True
) -> Outcome:
    """The outcome of a figure that has a record; for one that says "not run", the reason is its note."""
    if record.verdict == "not run":
        reason, ran = record.note, False
    return Outcome(
        record, time.perf_counter() - began, cached=True, folder=folder, reason=reason, ran=ran
    )


def _computed(script: ModuleType, context: Context) -> Result:
    """The result of a figure, or "not run" where it cannot use the network of torchvision that was given."""
    figure: Figure = script.FIGURE
    reason = unsuitable_network(figure, context)
    if not reason:
        try:
            return script.compute(context.for_figure(figure))
        except (UnsupportedNetwork, UnknownLayer) as error:
            if not context.foreign:
                raise
            reason = f"It cannot use {context.network_name}: {error}."
    return Result({}, {}, "not run", n=0, note=reason)


def _scale(result: Result, figure: Figure, context: Context) -> str:
    return result.scale or (context.scale if {"images", "top"} & set(figure.inputs) else "paper")


def _save(path: Path, key: str, result: Result) -> None:
    about = {name: getattr(result, name) for name in ("measured", "verdict", "n", "note", "scale")}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file, __about__=np.array(json.dumps(about | {"key": key})), **result.arrays
        )  # pyright: ignore[reportArgumentType]


def _load(path: Path, key: str) -> Result | None:
    """The cached result, or None where it is missing, damaged, or of another key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["__about__"]))
            if about.pop("key") != key:
                return None
            return Result(
                arrays={name: file[name] for name in file.files if name != "__about__"}, **about
            )
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def script_folder(script: ModuleType) -> Path:
    """The folder of a figure's script, to which its declared files are relative."""
    return Path(str(script.__file__)).parent
