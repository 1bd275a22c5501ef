"""Folds, Gram factors, classifiers and scores; the search for near-duplicates."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zfnet
from zfnet.analysis.features import extract
from zfnet.analysis.overlaps import find_overlaps
from zfnet.analysis.pooling_head import fit_pooling_head
from zfnet.analysis.transfer import (
    Fold,
    average_precision,
    coordinates,
    folds,
    gram,
    linear_svm,
    per_class_accuracy,
    softmax,
)
from zfnet.data.folders import load_folder
from zfnet.data.images import center


def test_folds_are_balanced_disjoint_and_nested():
    labels = np.repeat([0, 1, 2], [100, 40, 9])
    small_folds, large_folds = (folds(labels, n, max_test=50, count=5, seed=3) for n in (5, 20))
    for small_fold, large_fold in zip(small_folds, large_folds, strict=True):
        assert np.bincount(labels[small_fold.train]).tolist() == [5, 5, 5]
        assert np.bincount(labels[small_fold.test]).tolist() == [50, 35, 4]
        # A class with too few images keeps one for the test.
        assert np.bincount(labels[large_fold.train]).tolist() == [20, 20, 8]
        assert np.bincount(labels[large_fold.test]).tolist() == [50, 20, 1]
        assert set(small_fold.train) <= set(large_fold.train)
        assert not set(large_fold.train) & set(large_fold.test)
    assert len({tuple(fold.train) for fold in large_folds}) == 5
    assert all(
        (a.train == b.train).all()
        for a, b in zip(small_folds, folds(labels, 5, seed=3), strict=True)
    )
    with pytest.raises(ValueError, match=r"classes \[1\] have one image"):
        folds(np.array([0, 0, 1]), 1)


@pytest.mark.parametrize("width", [7, 400])
def test_coordinates_preserve_inner_products(width):
    features = np.random.default_rng(0).normal(size=(60, width)).astype(np.float32)
    products = gram(features, chunk=25)
    assert np.allclose(products, features.astype(float) @ features.T.astype(float), atol=1e-3)
    fold = Fold(np.arange(40), np.arange(40, 60))
    x, others = coordinates(products, fold)
    scale = np.square(features[:40].astype(float)).sum(1).mean()
    assert x.shape == (40, min(width, 40))
    assert np.allclose(x @ x.T, products[:40, :40] / scale, atol=1e-5)
    assert np.allclose(others @ x.T, products[40:, :40] / scale, atol=1e-5)
    assert np.square(x).sum(1).mean() == pytest.approx(1)


@pytest.mark.parametrize("classifier", [linear_svm, softmax])
def test_classifiers_of_coordinates_and_features_agree(classifier):
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 20)
    features = (rng.normal(size=(80, 300)) + 0.4 * rng.normal(size=(4, 300))[labels]).astype(
        np.float32
    )
    fold = folds(labels, 10, count=1)[0]
    x, others = coordinates(gram(features), fold)
    scaled = features / np.sqrt(np.square(features[fold.train]).sum(1).mean())
    direct = classifier(scaled[fold.train], labels[fold.train], (3.0,)).decision_function(
        scaled[fold.test]
    )
    factored = classifier(x, labels[fold.train], (3.0,)).decision_function(others)
    assert np.abs(direct - factored).max() < 0.02 * np.abs(direct).max()
    assert (direct.argmax(1) == factored.argmax(1)).mean() > 0.95


def test_regularization_is_chosen_on_the_training_images():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(3), 30)
    # Three informative features and five noisy ones.
    x = np.concatenate(
        [np.eye(3)[labels] + 0.1 * rng.normal(size=(90, 3)), 10 * rng.normal(size=(90, 5))], 1
    )
    assert softmax(x, labels, (1e-6, 10.0)).C == 10.0
    # With one image per class, take the middle value of C.
    assert softmax(x[[0, 30, 60]], labels[[0, 30, 60]], (1e-6, 1.0, 5.0)).C == 1.0


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert per_class_accuracy(labels, np.array([0, 0, 0, 1, 1, 0])) == pytest.approx((75 + 50) / 2)
    # In descending order: hit, miss, hit, (ignored), miss, hit; precision 1, 2/3, 3/5.
    scores, present = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([1, 0, 1, -1, 0, 1])
    assert average_precision(scores, present) == pytest.approx(100 * (1 + 2 / 3 + 3 / 5) / 3)
    # Miss, hit, hit: interpolation raises the precision 1/2 at the first hit to 2/3.
    assert average_precision(scores[:3], np.array([0, 1, 1])) == pytest.approx(100 * 2 / 3)
    with pytest.raises(ValueError, match="no image shows"):
        average_precision(scores, np.zeros(6, int))


@pytest.fixture
def model_and_images(tree):
    """Return a small network and the images of a tree."""
    torch.manual_seed(0)
    model = zfnet.fold(zfnet.zfnet(3, channels=(8, 8, 8, 8, 8), fc_units=16, norm="batch"))
    model.wnids = ["n01440764", "n02088094", "n03000000"]
    model.classes = list(model.wnids)
    return model, load_folder(tree / "train")


def test_features_equal_the_trace_and_are_cached(model_and_images, monkeypatch):
    model, images = model_and_images
    result = extract(model, images, ("pool1", "conv3", "fc7"), batch=7)
    t = zfnet.trace(model, images.batch([11]))
    for layer, features in result.items():
        expected = t[layer].flatten().numpy()
        assert features.shape == (24, len(expected))
        assert np.allclose(features[11], expected, atol=2e-3 * np.abs(expected).max())
    monkeypatch.setattr(
        "zfnet.analysis.features.run", lambda *a, **k: pytest.fail("extracted again")
    )
    assert np.array_equal(extract(model, images, ("fc7",))["fc7"], result["fc7"])


def test_cache_distinguishes_weights(model_and_images):
    model, images = model_and_images
    before = np.array(extract(model, images, ("fc7",))["fc7"])
    with torch.no_grad():
        model.fc7.weight.mul_(-1)
    after = extract(model, images, ("fc7",))["fc7"]
    assert not np.array_equal(after, before)
    assert np.allclose(
        after[5], zfnet.trace(model, images.batch([5]))["fc7"][0].numpy(), rtol=1e-3, atol=1e-3
    )


def test_features_beyond_half_precision_are_an_error(model_and_images):
    model, images = model_and_images
    model.conv1.weight.data *= 1e6
    with pytest.raises(ValueError, match="pool1 exceed half precision"):
        extract(model, images, ("pool1",))


def test_pooling_head_separates_colors(model_and_images):
    model, images = model_and_images
    shuffled = dataclasses.replace(images, wnids=list(images.wnids))
    weight, bias = fit_pooling_head(model, shuffled, c=100.0)
    assert weight.shape == (3, 8)
    pooled = zfnet.trace(model, images.batch(range(24)))["conv5"].mean((2, 3))
    assert ((pooled @ weight.T + bias).argmax(1).numpy() == images.labels).mean() > 0.9


def test_find_overlaps_finds_planted_near_duplicates_only(tmp_path):
    rng = np.random.default_rng(0)

    def scene():  # smooth like a photograph
        return Image.fromarray(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )

    first, second = [scene() for _ in range(6)], [scene() for _ in range(8)]
    second[3] = center(first[0], 224)  # the same square at another size
    second[5] = center(first[1], 256).crop((16, 16, 240, 240))  # the central 7/8
    # Mirrored, in gray.
    second[6] = first[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("L")
    # Shared frames and flat sky do not count as overlap.
    for framed in (first[3], second[0], first[4], second[1]):
        framed.paste("white", (0, 0, 320, 30))
        framed.paste("white", (0, 210, 320, 240))
    for trap in (first[5], second[2]):
        trap.paste(Image.linear_gradient("L").resize(trap.size))
        trap.paste(scene().resize((60, 60)), (130, 90))
    for folder, pictures in (("first", first), ("second", second)):
        (tmp_path / folder / "n0").mkdir(parents=True)
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / folder / "n0" / f"{i}.jpg", quality=70)
    result = find_overlaps(
        load_folder(tmp_path / "first"), load_folder(tmp_path / "second"), batch=5
    )
    assert result.index.tolist() == [0, 1, 2]
    assert result.other[:3].tolist() == [3, 5, 6]
    assert (result.correlation[:3] > 0.97).all()
    assert (result.correlation[3:] < 0.7).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_the_order_of_equal_scores_has_no_effect(images, random):
    """Average precision depended on the order of images with the same score."""
    if not any(present for _, present in images):
        images[0] = (images[0][0], True)
    shuffled = random.sample(images, len(images))
    first, second = (
        average_precision(np.array([s for s, _ in rows]), np.array([int(p) for _, p in rows]))
        for rows in (images, shuffled)
    )
    assert first == pytest.approx(second)
    if len({score for score, _ in images}) == 1:  # one threshold: the share of positive images
        assert first == pytest.approx(100 * sum(p for _, p in images) / len(images))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        average_precision(np.array([0.5, np.nan]), np.array([1, 0]))
