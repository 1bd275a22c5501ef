"""Neighbours against loops, the grid against every permutation, and a layout of clusters that are known."""

import itertools
import sys

import numpy as np
import pytest
import torch

from zfnet.methods.codes import grid, nearest, principal_components, tsne


def test_neighbours_are_those_of_the_cosine_and_never_the_image_itself():
    codes = np.random.default_rng(0).normal(size=(600, 5))  # more than one block of rows
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    expected = [sorted((j for j in range(600) if j != i), key=lambda j: -unit[i] @ unit[j])[:3] for i in range(0, 600, 23)]
    assert nearest(torch.from_numpy(codes), 3)[::23].tolist() == expected
    assert nearest(torch.from_numpy(10 * codes[:9]), 8).shape == (9, 8)
    with pytest.raises(ValueError, match="between 1 and the 8 other images, got 9"):
        nearest(torch.from_numpy(codes[:9]), 9)


def test_principal_components_are_uncorrelated_and_in_order():
    codes = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 9) + 3
    found = principal_components(codes, 3).numpy()
    covariance = np.cov(found.T)
    np.testing.assert_allclose(np.diag(covariance), np.sort(np.linalg.eigvalsh(np.cov(codes.numpy().T)))[::-1][:3])
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-9)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)


def test_a_grid_is_the_best_of_all_assignments():
    rng = np.random.default_rng(0)
    for n, columns, rows in ((6, 3, 2), (5, 2, 3)):
        points = rng.normal(size=(n, 2)) * (3, 100)
        found = grid(points, columns)
        assert len(set(found.tolist())) == n
        low, high = points.min(0), points.max(0)
        places = (points - low) / (high - low) * (columns - 1, rows - 1)

        def cost(cells, places=places, columns=columns, rows=rows):
            return sum(
                (x - c % columns) ** 2 + (y - (rows - 1 - c // columns)) ** 2 for (x, y), c in zip(places, cells, strict=True)
            )

        best = min(itertools.permutations(range(columns * rows), n), key=cost)
        assert cost(found) == pytest.approx(cost(best))
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    assert grid(corners, 2).tolist() == [2, 3, 0, 1]  # row 0 is on top, and the second coordinate grows upwards


def test_a_layout_keeps_clusters_apart_and_is_the_same_again():
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 30, generator=rng) * 5
    labels = np.repeat(np.arange(4), 25)
    codes = centres[labels] + torch.randn(100, 30, generator=rng)
    points = tsne(codes, seed=0, perplexity=10)
    assert points.shape == (100, 2)
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(100, np.inf))
    assert (labels[distance.argmin(1)] == labels).all()
    np.testing.assert_array_equal(points, tsne(codes, seed=0, perplexity=10))
    with pytest.raises(ValueError, match="three images"):
        tsne(codes[:2], seed=0)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"pip install 'zfnet\[reproduce\]'"):
        tsne(torch.zeros(4, 4), seed=0)
    with pytest.raises(ImportError, match=r"pip install 'zfnet\[reproduce\]'"):
        grid(np.zeros((4, 2)), 2)
