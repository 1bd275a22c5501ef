"""Lecture figures on features: numbers on synthetic inputs, verdicts, annotations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import zfnet
from reproduce.core.figure import SAMPLES
from reproduce.core.page import plain
from reproduce.lectures.features import (
    activations,
    codes,
    directions,
    extremes,
    faces_and_text,
    feature_maps,
    filters,
    labeled_images,
    unit_selection,
)
from reproduce.lectures.kinds import KINDS
from reproduce.lectures.sampling import image_classes, spread_indices, unit_patches
from tests.conftest import random_he
from zfnet.analysis.selectivity import auc
from zfnet.data.samples import load_samples


def test_indices_are_spread_and_photographs_serve_as_classes(cache):
    images = load_samples()
    ctx = SimpleNamespace(images=images, corpus=SAMPLES)
    indices = spread_indices(ctx, 60)
    assert (len(indices), indices[0], indices[-1]) == (60, 0, len(images) - 1)
    assert np.diff(indices).max() - np.diff(indices).min() <= 1
    assert len(spread_indices(ctx, 10**6)) == len(images)
    names = [images.names[i].split("@")[0] for i in indices]
    assert len(set(zip(names, image_classes(ctx, indices).tolist(), strict=True))) == len(
        set(names)
    )


def test_unit_patches_are_receptive_fields(cache):
    images, model = load_samples(), random_he(zfnet.zfnet(6, channels=(6, 7, 8, 8, 5), fc_units=8))
    ctx = SimpleNamespace(images=images, model=model, device="cpu")
    patches = unit_patches(ctx, "conv3", np.array([3, 40]), torch.tensor([[6, 7], [0, 12]]))
    x = images.batch([3, 40])
    t = zfnet.trace(model, x, until="conv3")
    top, left, bottom, right = t.box("conv3", torch.tensor([6, 7])).tolist()
    assert patches.shape == (2, 3, 75, 75)
    np.testing.assert_array_equal(patches[0], x[0, :, top:bottom, left:right])
    # At the border, the patch is shifted into the image.
    np.testing.assert_array_equal(patches[1], x[1, :, :75, -75:])


def test_smoothness_of_filters_and_verdict():
    ramp = torch.ones(2, 3, 5, 5) + 0.1 * torch.arange(5)
    noise = torch.randn(400, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert filters.smoothness(ramp).min() > 0.99
    assert abs(filters.smoothness(noise).mean()) < 0.02
    stripes = torch.tensor([1.0, -1.0]).repeat(3)[:5].expand(1, 1, 5, 5)
    # Vertical neighbors are equal, horizontal ones opposite.
    assert float(filters.smoothness(stripes)) == pytest.approx(0, abs=1e-6)
    smooth = {"conv1": [0.9, 0.88, 0.92], "conv2": [0.5, 0.48, 0.52]}
    assert filters.judge(smooth, {"conv2": [0.2, 0.19, 0.21]})[1] == "reproduced"
    assert filters.judge(smooth, {"conv2": [0.49, 0.47, 0.51]})[1] == "partial"
    assert (
        filters.judge(smooth | {"conv3": [0.87, 0.86, 0.89]}, {"conv2": [0.5, 0.4, 0.6]})[1]
        == "not comparable"
    )
    assert (
        filters.judge(smooth | {"conv3": [0.95, 0.94, 0.96]}, {"conv2": [0.6, 0.55, 0.65]})[1]
        == "differs"
    )


def test_map_and_activation_verdicts():
    falling = {
        layer: [0.5 - 0.05 * i, 0.49 - 0.05 * i, 0.51 - 0.05 * i]
        for i, layer in enumerate(feature_maps.LAYERS)
    }
    rising = {
        layer: [0.1 * i, 0.1 * i - 0.01, 0.1 * i + 0.01]
        for i, layer in enumerate(feature_maps.LAYERS)
    }
    assert feature_maps.judge(rising, falling)[1] == "reproduced"
    assert feature_maps.judge(rising, rising)[1] == "partial"
    assert feature_maps.judge(falling, rising)[1] == "differs"
    numbers = {
        layer: {"maps or units": 100, "dead": 1, "sparsity, %": 60 + i}
        for i, layer in enumerate(activations.LAYERS)
    }
    assert activations.judge(numbers)[1] == "reproduced"
    numbers["conv3"]["dead"] = 2
    claims, verdict = activations.judge(numbers)
    assert verdict == "partial"
    assert [claim for claim, state in claims.items() if state != "holds"] == [
        "at most 1 % of conv3 is dead"
    ]


def test_shared_images_by_hand():
    index = torch.tensor([[0, 1, 2], [0, 1, 3], [4, 5, 6]])
    # The first two features share two of three images with each other, and none with the third.
    np.testing.assert_allclose(extremes.shared_images(index, 7), [1 / 3, 1 / 3, 0])
    measured = extremes.measure(np.zeros(7, dtype=int), dict.fromkeys(extremes.RANKINGS, index))
    assert measured[extremes.DIFFERENCE]["by mean"] == [0, 0, 0]
    claims, verdict = extremes.judge(measured)
    assert (set(claims.values()), verdict) == ({"undecided"}, "not comparable")
    assert "+0.0 to +0.0 points by mean" in extremes.state_reason(measured, verdict)


def test_titles_keep_a_space_before_percent_signs():
    assert plain("5% or 12 % of $x") == "5\u00a0% or 12\u00a0% of \\$x"


def test_unit_verdict_against_random_directions():
    def numbers(*intervals, random=(0.3, 0.2, 0.4)):
        units = {"units": [], "random directions": random}
        measured = {
            f"{i}: one class": units | {directions.MARGIN: interval}
            for i, interval in enumerate(intervals)
        }
        return measured | {
            "nine random images": {"share of the most common class": 0.1, "cosine of layer 7": 0.1}
        }

    below, equal, above = (-0.2, -0.3, -0.1), (0, -0.2, 0.2), (0.2, 0.1, 0.3)
    measured = [
        directions.judge(numbers(*kind))
        for kind in ((below, below), (below, equal), (below, above), (above,), (equal,))
    ]
    assert [verdict for _, verdict in measured] == [
        "reproduced",
        "partial",
        "partial",
        "differs",
        "not comparable",
    ]
    assert list(measured[1][0].values()) == ["holds", "undecided"]
    # The random directions may be at chance level.
    assert directions.judge(numbers(below, random=(0.2, 0.05, 0.3)))[1] == "not comparable"


def test_kinds_are_ranges_that_do_not_overlap():
    classes = [i for ranges in KINDS.values() for low, high in ranges for i in range(low, high)]
    assert len(classes) == len(set(classes))
    expected = {
        "Pomeranian": "dogs",
        "tabby": "other mammals",
        "goldfinch": "birds",
        "boa constrictor": "other animals",
    }
    expected |= {
        "espresso": "things and places",
        "strawberry": "food and plants",
        "daisy": "food and plants",
        "bee": "other animals",
    }
    names = list(zfnet.data.labels.imagenet_names())
    ctx = SimpleNamespace(
        corpus="imagenet",
        model=SimpleNamespace(wnids=names),
        images=SimpleNamespace(labels=np.array([names.index(n) for n in expected])),
    )
    numbers, kinds = codes.kinds_of(ctx, np.arange(len(expected)))
    assert {name: kinds[i] for name, i in zip(expected, numbers, strict=True)} == expected | {
        "espresso": "food and plants"
    }


def test_annotations_are_sufficient_and_classes_do_not_predict_labels():
    marks = yaml.safe_load(faces_and_text.MARKS.read_text())["imagenet"]
    assert len(marks) >= 60
    assert all(len(mark["sha256"]) == 64 and len(mark) > 1 for mark in marks.values())
    for label in faces_and_text.LABELS:
        labels = {
            name: mark[label] for name, mark in marks.items() if labeled_images.counts(mark, label)
        }
        assert min(sum(labels.values()), len(labels) - sum(labels.values())) >= 40
        both = [
            wnid
            for wnid in {name.split("_")[0] for name in labels}
            if len({v for n, v in labels.items() if wnid in n}) == 2
        ]
        assert len(both) >= 10


def test_units_are_tested_on_held_out_classes():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(12), 8)
    y = rng.random(96) < np.linspace(0.2, 0.8, 12)[classes]
    half = labeled_images.first_half(classes, y)
    assert len(set(classes[half]) & set(classes[~half])) == 0
    assert len(set(classes[half])) == 6
    values = rng.normal(size=(96, 4)) + y[:, None]
    mean, low, high = unit_selection.held_out_auc(values, y, half, classes, [2, 1])
    sides = [
        float(auc(torch.from_numpy(values[side]), torch.from_numpy(y[side]))[unit])
        for side, unit in ((~half, 2), (half, 1))
    ]
    assert mean == pytest.approx(np.mean(sides))
    assert 0.5 < low < mean < high < 1


@pytest.mark.parametrize(
    ("face", "text", "verdict"),
    [(0.8, 0.8, "reproduced"), (0.8, 0.6, "partial"), (0.5, 0.5, "differs")],
)
def test_faces_and_text_verdict(face, text, verdict):
    limits = zip(unit_selection.CONTROLS, ([0.5, 0.6], [0.6, 0.7]), strict=True)
    controls = {unit_selection.LIMITS.format(name): limit for name, limit in limits}
    numbers = {
        t: controls | {unit_selection.HELD_OUT: {"conv5": [v]}}
        for t, v in (("face", face), ("text", text))
    }
    assert faces_and_text.judge(numbers)[1] == verdict


def test_faces_and_text_is_not_run_without_annotated_images(tree):
    (tree / "val" / "n03000000").rename(tree / "val" / "n02112018")
    from reproduce.core.context import Context

    result = faces_and_text.compute(Context("imagenet65k", str(tree)))
    assert (result.verdict, result.measured) == ("not run", {"images": 0})
    assert "absent" in result.note
