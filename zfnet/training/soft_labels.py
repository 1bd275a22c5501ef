"""Soft labels: a teacher's largest probabilities for fixed crops of images, in one small file."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zfnet.data import no_progress
from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.data.io import decode_name, encode_name, expand_path
from zfnet.data.tensor_file import CheckpointError, read_tensors, write_tensors
from zfnet.training.augment import crop
from zfnet.training.teacher import Teacher

TOP = 8  # probabilities stored per crop
KIND = "soft labels"  # distinguishes a label file from a checkpoint
CLASSES = 1000  # of ILSVRC 2012: the teacher's outputs, by WordNet id
BATCH = 32  # crops per call of the teacher
BYTES = TOP * (2 + 1)  # of a crop: an index in two bytes and a probability in one


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """A teacher's largest probabilities for K fixed crops of each of N images.

    Attributes:
        names: N file names, relative to the folder of training images: `<wnid>/<file>`.
        resolution: (N,) int64, the shorter side of each file in pixels.
        boxes: (N, K, 4) float32 crops, in the form of `zfnet.training.augment.random_boxes`.
        index: (N, K, 8) int64, the teacher's most probable classes.
        probability: (N, K, 8) float32 in [0, 1]; all zero without a prediction of the teacher.
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
        without predictions are zero.

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
        predicted = probability.sum(1, keepdim=True) > 0
        return dense / dense.sum(1, keepdim=True) * predicted


def load_labels(path: str | Path) -> SoftLabels:
    """Read a file of `write_labels` and verify it.

    Args:
        path: The file.

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
    names = decode_name(zlib.decompress(tensors["names"].numpy().tobytes())).split("\n")
    boxes = label_boxes(
        names, tensors["index"].shape[1], meta["seed"], meta["scale"], meta["aspect"]
    )
    if _hash(boxes) != meta["boxes"]:
        raise DataError(f"soft labels: {path}: numpy {np.__version__} does not reproduce its crops")
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
    """Write a teacher's largest probabilities for fixed crops of images.

    Partial results are kept in hidden files next to `path`: the same call continues a killed run.

    Args:
        path: The label file, .safetensors.
        images: The images, as squares.
        resolution: (N,) shorter side of each file in pixels.
        teacher: Gives the probabilities.
        crops: Crops per image.
        scale: Smallest and largest side of a crop, as a share of the square's side.
        aspect: Largest ratio of a crop's sides.
        seed: Seed of the crops.
        minimum: Least resolution in pixels of images that the teacher predicts: it recognizes
            enlarged thumbnails badly.
        batch: Crops per call of the teacher.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The labels, as `load_labels` reads them.

    Raises:
        DataError: The partial results belong to other images or options.
    """
    path = expand_path(path)
    boxes = label_boxes(images.names, crops, seed, scale, aspect)  # (N, K, 4)
    meta = {
        "kind": KIND,
        "teacher": teacher.name,
        "seed": seed,
        "scale": list(scale),
        "aspect": aspect,
        "minimum": minimum,
        "classes": CLASSES,
        "data": images.digest,
        "boxes": _hash(boxes),
    }
    index, probability = _partial(path, (len(images), crops, TOP), meta)
    # The largest probability is stored as at least 1, so 0 means that there is no prediction yet.
    missing = (probability[:, :, 0] == 0) & (resolution >= minimum)[:, None]  # (N, K)
    todo = np.argwhere(missing)
    starts = range(0, len(todo), batch)
    for start in progress(starts, total=len(starts), desc=f"labels by {teacher.name}"):
        rows, which = todo[start : start + batch].T
        top = _predict(teacher, images, rows, boxes[rows, which])
        index[rows, which], probability[rows, which] = top
        if start // batch % 50 == 49:
            index.flush()
            probability.flush()
    tensors = {
        "index": torch.from_numpy(np.array(index)),
        "probability": torch.from_numpy(np.array(probability)),
        "resolution": torch.from_numpy(resolution.astype(np.uint16)),
        "names": _pack_names(images.names),
    }
    write_tensors(path, tensors, meta)
    for file in (*_partial_files(path), _partial_key(path)):
        file.unlink(missing_ok=True)
    return load_labels(path)


def _predict(
    teacher: Teacher, images: Images, rows: np.ndarray, boxes: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return the teacher's 8 largest probabilities for crops: (n, 8) uint16 and (n, 8) uint8."""
    unique, inverse = np.unique(rows, return_inverse=True)  # reads each image once
    pixels = crop(images.raw(unique)[torch.from_numpy(inverse)], boxes, teacher.size)
    largest = teacher.probabilities(pixels).topk(TOP)
    values = (largest.values * 255).round().numpy().astype(np.uint8)
    values[:, 0] = np.maximum(values[:, 0], 1)  # see `write_labels`
    return largest.indices.numpy().astype(np.uint16), values


def _pack_names(names: Sequence[str]) -> Tensor:
    packed = zlib.compress(encode_name("\n".join(names)), 9)
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def label_boxes(
    names: Sequence[str], crops: int, seed: int, scale: Sequence[float], aspect: float
) -> Tensor:
    """Draw the crops of images from a counter-based generator, keyed by seed and image name.

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
        int.from_bytes(hashlib.blake2b(encode_name(name), digest_size=8).digest()) for name in names
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
        seed: Selects the images of classes that have more.

    Returns:
        (n,) indices, ascending.
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


def _partial_files(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.index.npy"), path.with_name(
        f".{path.name}.probability.npy"
    )


def _partial_key(path: Path) -> Path:
    return path.with_name(f".{path.name}.key")


def _partial(path: Path, shape: tuple[int, int, int], meta: dict) -> tuple[np.memmap, np.memmap]:
    """Map the partial results from disk: new ones, or those of a killed run."""
    key_file, key = _partial_key(path), hashlib.sha256(repr(meta).encode()).hexdigest()
    if key_file.exists() and key_file.read_text() != key:
        raise DataError(f"{key_file}: from other images or options; remove it to start over")
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
