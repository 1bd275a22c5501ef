"""What a run gives to a figure: a network, a corpus of images, and the search over both."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from reproduce.core.corpora import DATASETS, corpus_name, images_root, tree_digest
from reproduce.core.figure import DEFAULT_MODEL, SAMPLES, Figure
from reproduce.core.inputs import Input, UndeclaredInputError
from reproduce.core.networks import differences_from_paper, has_shared_fc6
from reproduce.core.stages import STAGES, has_stages, with_paper_layers
from zfnet.checkpoint import CheckpointError
from zfnet.data import no_progress
from zfnet.data.benchmarks import DatasetNotFoundError
from zfnet.data.cache import DataError, cache_dir, digest
from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.samples import load_samples
from zfnet.data.tensor_file import sha256
from zfnet.data.tree import scan
from zfnet.model import Network
from zfnet.networks import load_network
from zfnet.ranking import TopActivations
from zfnet.top import top_activations

SEARCH_VERSION = 1  # increase it when the search for the strongest activations changes
IMAGENET_TRAIN = 1_281_167  # images that torchvision's networks were trained on


class Context:
    """The inputs of a run.

    `for_figure` restricts a context to the inputs that a figure declares.

    Args:
        model: Bundled network, checkpoint file, or "torchvision:NAME".
        data: Folder of images, "imagenette", or None for the sample photographs.
        device: A torch device.
        progress: Wraps iterables to show progress, like tqdm.
        datasets: Folder of torchvision's data sets. Default: `datasets/` in the cache.
        weights: For a network of torchvision: a file, "random", or None for pretrained weights.
        scale: The value of `--scale`, or None to let each figure choose what the device allows.

    Attributes:
        corpus: Name of the images: "samples", or the name of their folder.
        declared: The inputs that may be used; None for all.
        opened: The inputs that are open, shared between restricted contexts.
        unrestricted: The context of the whole run.
    """

    def __init__(
        self,
        model: str,
        data: str | None,
        device: str = "cpu",
        progress: Callable = no_progress,
        datasets: str | None = None,
        weights: str | None = None,
        scale: str | None = None,
    ):
        self.model_name, self.device, self.progress = model, device, progress
        self.data, self.weights, self.requested_scale = data, weights, scale
        self.requested_datasets = datasets
        self.datasets = Path(datasets).expanduser() if datasets else cache_dir() / "datasets"
        self.corpus = SAMPLES if data is None else corpus_name(data)
        self.declared: tuple[str, ...] | None = None
        self.opened: dict[str, Any] = {}
        self.unrestricted = self

    def for_figure(self, figure: Figure) -> Context:
        """This context, restricted to the inputs that a figure declares."""
        restricted = copy.copy(self)
        restricted.declared = figure.inputs
        return restricted

    def require(self, name: str) -> None:
        """Raise UndeclaredInputError for an input that the figure does not declare."""
        if self.declared is not None and name not in self.declared:
            raise UndeclaredInputError(
                f"the figure uses {name!r}, but declares only {self.declared}"
            )

    @Input
    def model(self) -> Network:
        """The network under analysis, folded, in eval mode.

        A network of torchvision with branches gets the names of the paper's layers, where it has
        five stages.
        """
        model = cast(Network, load_network(self.model_name, self.weights))
        if self.from_torchvision:
            model = cast(Network, with_paper_layers(model))
            model.info = {
                "sha256": sha256(model.state_dict(), {"name": self.model_name}),
                "training_images": 0 if self.weights else IMAGENET_TRAIN,  # 0: unknown
            }
        return model.to(self.device)

    @Input
    def images(self) -> Images:
        """The corpus, labeled by the network's outputs; -1 for the sample photographs."""
        if self.data is None:
            return load_samples()
        images = load_folder(images_root(self.data), progress=self.progress)
        return images.aligned(self.model.wnids, self.model.classes)

    @Input
    def top(self) -> TopActivations:
        """The nine strongest activations of each feature of layers 1-5 over the corpus."""
        key = digest(self.checkpoint, self.images.digest, SEARCH_VERSION)[:20]
        state = cache_dir() / f"top-{key}.safetensors"
        search = functools.partial(
            top_activations,
            self.model,
            self.images,
            groups=self.images.groups,
            progress=self.progress,
            state=state,
        )
        try:
            return search()
        except CheckpointError:  # the saved state is damaged
            state.unlink()
            return search()

    @Input
    def tree(self) -> Path | None:
        """The tree of images with train/ and val/, for figures that train; None without one."""
        if not self.data or self.data == "imagenette":
            return None
        root = Path(self.data).expanduser()
        return root.parent if root.name == "val" else root

    @Input
    def pretraining(self) -> Images | None:
        """The training images of the tree, at 128 pixels; None without a tree."""
        if self.tree is None:
            return None
        return load_folder(self.tree / "train", side=128, size=112, progress=self.progress)

    def dataset(self, name: str) -> Any:
        """A data set of DATASETS, or None if it is not in the folder `datasets`."""
        self.require(name)
        if name not in self.opened:
            try:
                self.opened[name] = DATASETS[name](self.datasets, self.progress)
            except DatasetNotFoundError:
                self.opened[name] = None
        return self.opened[name]

    @property
    def differences_from_paper(self) -> str:
        """A sentence on how the network differs from the paper's, for the notes of figures."""
        if self.from_torchvision:
            text = f"This network is not the paper's, but torchvision's {self.network_name}. "
            if has_stages(self.model):
                text += f"{STAGES[0]} to {STAGES[-1]} are its last maps of each size. "
            return text
        return differences_from_paper(self.model)

    @property
    def shared_fc6(self) -> bool:
        """Whether fc6 has one weight for all positions of a map, so that it sees only its mean."""
        return not self.from_torchvision and has_shared_fc6(self.model)

    @property
    def network_name(self) -> str:
        """Name for folders and records: imagenet for runs/imagenet/model.safetensors."""
        if ":" in self.model_name:
            return self.model_name.rpartition(":")[2]  # resnet18 for torchvision:resnet18
        path = Path(self.model_name).expanduser()
        return path.resolve().parent.name if path.stem == "model" else path.stem

    @property
    def checkpoint(self) -> str:
        """The hash of the network's weights."""
        return self.unrestricted.model.info["sha256"]

    @property
    def from_torchvision(self) -> bool:
        """Whether the network is one of torchvision's."""
        return self.model_name.startswith("torchvision:")

    @property
    def device_type(self) -> str:
        """ "cuda" or "cpu": the sizes of figures that train or measure speed depend on it."""
        return "cuda" if torch.device(self.device).type == "cuda" else "cpu"

    @property
    def scale(self) -> str:
        """The scale of a result from the images: the paper's, a subset, or the samples."""
        if self.data is None:
            return "samples"
        run = self.unrestricted
        all_images = len(run.images) == 50_000 and run.model.info["training_images"] > 1_200_000
        return "paper" if all_images else "subset"

    @functools.cached_property
    def tree_size(self) -> tuple[int, int, int]:
        """Numbers of classes, training and validation images of the tree, from its listing.

        Raises:
            DataError: The tree has no train/ or no val/.
        """
        tree = self.unrestricted.tree
        assert tree is not None
        (classes, train, _), (_, val, _) = (scan(tree / split) for split in ("train", "val"))
        return len(classes), len(train), len(val)

    def check(self, dry_run: bool = False) -> None:
        """Check the user's options before anything is computed.

        Args:
            dry_run: Allow a tree that is too small for `--scale paper`.

        Raises:
            DataError: A folder does not exist, or is too small for `--scale paper`.
            CheckpointError: The network cannot be loaded.
        """
        if self.model_name != DEFAULT_MODEL or self.weights:
            _ = self.model  # loads it
        for path in (self.data if self.data != "imagenette" else None, self.requested_datasets):
            if path and not Path(path).expanduser().is_dir():
                raise DataError(f"{path}: no such folder")
        if self.requested_scale == "paper" and not dry_run and self.too_small_for_paper_scale:
            raise DataError(self.too_small_for_paper_scale)

    @property
    def too_small_for_paper_scale(self) -> str:
        """Why the tree does not allow `--scale paper`; "" if it does."""
        needs = (
            "--scale paper needs ImageNet 2012: 1,000 classes, over 1,200,000 training and "
            "50,000 validation images"
        )
        if self.tree is None:
            return f"{needs}; give its folder with --data"
        classes, train, val = self.tree_size
        if (classes, val) == (1000, 50_000) and train >= 1_200_000:
            return ""
        return (
            f"{needs}; {self.tree} has {classes:,} classes, {train:,} training and {val:,} "
            "validation images. Omit --scale, or use --scale subset or smoke"
        )

    def identity(self, figure: Figure) -> dict[str, str]:
        """The hashes of a figure's declared inputs, for its cache key and its record."""
        inputs = set(figure.inputs)
        identity = {"corpus": figure.corpus or self.corpus}
        if figure.uses_model and self.model_name != DEFAULT_MODEL:
            identity["model"] = self.model_name if self.from_torchvision else self.network_name
        if figure.scales and self.requested_scale:
            identity["plan"] = self.requested_scale
        if {"model", "top"} & inputs:
            identity["checkpoint"] = self.checkpoint
        if figure.uses_images:
            identity["data"] = self.images.digest
        if "tree" in inputs:
            identity["tree"] = tree_digest(self.tree) if self.tree else "absent"
        if "device" in inputs:
            identity["device"] = torch.device(self.device).type
        datasets = {name: self.dataset(name) for name in DATASETS if name in inputs}
        if "pretraining" in inputs and any(datasets.values()):  # else nothing is compared with it
            datasets["pretraining"] = self.pretraining
        return identity | {name: d.digest if d else "absent" for name, d in datasets.items()}
