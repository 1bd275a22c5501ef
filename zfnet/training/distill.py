"""Distillation: train on fixed crops towards a teacher's stored probabilities.

A good teacher is patient and consistent (Beyer et al. 2022): teacher and student see the same crop,
and training runs for many epochs. `zfnet.training.soft_labels` stores the teacher's largest
probabilities (Shen & Xing 2022), so a few megabytes repeat the training without the teacher.

    zfnet distill-labels --data TREE --out labels.safetensors      # needs the extra `distill`
    zfnet train configs/imagenet-distilled.yaml --data TREE --init imagenet65k  # does not
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zfnet.data.cache import DataError
from zfnet.data.dataset import Images
from zfnet.training.soft_labels import load_labels

Targets = tuple[Tensor, Tensor | None]  # (N, classes) of the true classes, and of the teacher


class Replay:
    """A teacher's crops and predictions of the images that a run trains on.

    Args:
        path: A label file.
        images: The training images; their classes are those of ILSVRC 2012.

    Raises:
        DataError: The file cannot be used, an image has no labels in it, or the classes differ.
    """

    def __init__(self, path: str | Path, images: Images):
        self.labels, names = load_labels(path), images.names
        if len(images.wnids) != self.labels.classes:
            raise DataError(
                f"soft labels: {path}: the teacher has {self.labels.classes} classes, the training "
                f"images have {len(images.wnids)}"
            )
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
        self,
        images: np.ndarray,
        temperature: float,
        generator: torch.Generator,
        amount: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Draw one of each image's crops.

        Args:
            images: (N,) indices of the images.
            temperature: Softens the distributions.
            generator: CPU generator.
            amount: How far the crops may differ from the stored ones; see `jitter`.

        Returns:
            The boxes (N, 4), and the teacher's distributions (N, classes) at the temperature.
        """
        rows = self._rows[images]
        crops = torch.randint(self.labels.boxes.shape[1], (len(rows),), generator=generator)
        boxes = self.labels.boxes[rows, crops]
        if amount:
            boxes = jitter(boxes, amount, generator)
        return boxes, self.labels.target(rows, crops, temperature)


def jitter(boxes: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Move and resize crops at random, and flip half of them.

    With few stored crops per image, the student would otherwise memorize them.

    Args:
        boxes: (N, 4) crops, in the form of `zfnet.training.augment.random_boxes`.
        amount: Largest shift, as a share of the crop's half width and half height. Both are
            multiplied by 1 - amount to 1 / (1 - amount), within the square.
        generator: CPU generator.

    Returns:
        (N, 4) crops.
    """
    center, half = boxes[:, :2], boxes[:, 2:].abs()
    resize, shift = torch.rand(2, *half.shape, generator=generator) * 2 - 1  # (N, 2) each
    center = center + amount * shift * half
    half = (half * (1 - amount) ** resize).clamp_max(1)
    center = center.clamp(half - 1, 1 - half)
    flip = torch.rand(len(boxes), generator=generator) < 0.5
    return torch.cat([center, torch.where(flip, -half[:, 0], half[:, 0])[:, None], half[:, 1:]], 1)


def targets(
    y: Tensor, teacher: Tensor | None, classes: int, *, weight: float, smoothing: float
) -> Targets:
    """Return a batch's targets: its true classes and the teacher's predictions.

    Args:
        y: (N,) classes.
        teacher: (N, classes) distributions, or None. Images with a row of zeros, without a
            prediction, learn from their class alone.
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
        alpha: Shares are drawn from Beta(alpha, alpha); each image keeps the larger share.
        seed: Numbers that seed shares and partners.

    Returns:
        Blended images and targets, of the same shapes.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    share = generator.beta(alpha, alpha, len(x)).astype(np.float32)
    weight = torch.from_numpy(np.maximum(share, 1 - share)).to(x.device)[:, None]  # (N, 1)
    partner = torch.from_numpy(generator.permutation(len(x))).to(x.device)
    true, teacher = (None if t is None else t * weight + t[partner] * (1 - weight) for t in pair)
    weight = weight[:, :, None, None]  # (N, 1, 1, 1)
    assert true is not None
    return (x * weight).addcmul_(x[partner], 1 - weight), (true, teacher)


def distillation_loss(logits: Tensor, pair: Targets, temperature: float) -> Tensor:
    r"""Cross-entropy with the true classes and, at a temperature, the teacher (Hinton et al. 2015).

    $-\frac1N \sum h \log p_1 - \frac{T^2}{N} \sum s \log p_T$ with
    $p_T = \mathrm{softmax}(z / T)$. The targets h and s include the shares of both terms: together,
    their rows sum to one.

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
