"""A trained row of Table 3: what it predicts, and what its training took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import zfnet


@dataclass(frozen=True, eq=False)
class Row:
    """What a trained network predicts for the N validation images.

    Attributes:
        rank: (N,), the rank of the true class, from 1. If the training diverged, beyond the last.
        train_rank: (M,), the same for M images that it was trained on, without dropout.
        probability: (N, classes) float32, the mean over the plan's views; empty for networks that
            are in no ensemble.
        label: (N,), the true classes.
        about: How it was trained. `about["diverged"]` says where the training diverged, else "".
    """

    rank: np.ndarray
    train_rank: np.ndarray
    probability: np.ndarray
    label: np.ndarray
    about: dict

    def error(self, k: int = 1) -> float:
        """Top-k validation error in percent."""
        return 100 * float((self.rank > k).mean())

    def train_error(self) -> float:
        """Top-1 training error in percent."""
        return 100 * float((self.train_rank > 1).mean())


Rows = dict[str, list[Row]]  # one Row per seed, by the name of the row


def ranks(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The rank of the true class of each image, from 1; ties go to the lower class.

    Args:
        probability: (N, classes).
        label: (N,).
    """
    true = probability[np.arange(len(label)), label][:, None]
    lower = np.arange(probability.shape[1]) < label[:, None]
    return 1 + ((probability > true) | ((probability == true) & lower)).sum(1)


def paper_scale_note(row: Row, size: int) -> str:
    """A sentence on how long the paper's training would take, from the speed at `size` pixels."""
    speed = training_speed(row)
    if not speed:
        return "ZFNet finished no epoch, so the time at the paper's scale is not estimated."
    with torch.device("meta"):
        macs, paper_macs = (
            sum(layer.macs for layer in zfnet.describe(zfnet.zfnet(1000, size=side)))
            for side in (size, 224)
        )
    hours = 70 * 1.28e6 / speed / 3600 * paper_macs / macs
    return (
        "The paper's 70 epochs of 1.28 million images of 224 pixels would take ZFNet "
        f"{hours:,.0f} h: the {speed:.0f} images/s measured at {size} pixels, in its last epoch on "
        f"{row.about['device']}, scaled by the multiply-adds."
    )


def diverged_trainings(rows: Rows) -> dict[str, str]:
    """Where trainings diverged, by row and seed."""
    return {
        f"{name}, seed {seed}": row.about["diverged"]
        for name, seeds in rows.items()
        for seed, row in enumerate(seeds)
        if row.about["diverged"]
    }


def training_speed(row: Row) -> float:
    """Images per second in the last epoch of a training; 0 if it finished none."""
    return row.about["log"][-1]["images_per_second"] if row.about["log"] else 0.0


def training_facts(rows: Rows) -> dict:
    """Speeds, hours, commits and devices of the trainings."""
    trainings = [row for seeds in rows.values() for row in seeds]
    speeds = {name: training_speed(seeds[0]) for name, seeds in rows.items()}
    return {
        "training images per second": {
            name: round(speed, 1) for name, speed in speeds.items() if speed
        },
        "hours of training, all rows": sum(row.about["seconds"] for row in trainings) / 3600,
        "commits": sorted({row.about["commit"] for row in trainings}),
        "devices": sorted({row.about["device"] for row in trainings}),
    }


def validation_curves(rows: Rows, epochs: int) -> np.ndarray:
    """Validation error of each row's first seed by epoch: (rows, epochs), NaN where diverged."""
    curves = np.full((len(rows), epochs), np.nan)
    for curve, seeds in zip(curves, rows.values(), strict=True):
        log = [line["val_top1_error"] for line in seeds[0].about["log"]]
        curve[: len(log)] = log
    return curves
