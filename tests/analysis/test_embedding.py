"""Embeddings against scikit-learn, hand-computed values, loops and all permutations."""

import itertools
import sys

import numpy as np
import pytest
import torch

from zfnet.analysis.embedding import (
    grid_layout,
    nearest_centroid,
    nearest_neighbors,
    pca,
    silhouette,
    tsne,
)


@pytest.mark.parametrize("shape", [(60, 8), (20, 3, 7, 5)], ids=["more images", "more features"])
def test_pca_equals_scikit_learn(shape):
    sklearn = pytest.importorskip("sklearn.decomposition")
    x = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        * torch.linspace(1, 4, shape[-1])
        + 3
    )
    result = pca(x, 4)
    reference = sklearn.PCA(4, svd_solver="full").fit(x.flatten(1).double().numpy())
    axes = torch.from_numpy(reference.components_)
    # The sign of a component is arbitrary.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    torch.testing.assert_close(result.axes.double(), axes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        result.explained_variance_ratio.double(),
        torch.from_numpy(reference.explained_variance_ratio_),
        rtol=1e-5,
        atol=1e-6,
    )
    torch.testing.assert_close(
        result.codes, (x.flatten(1) - result.mean) @ result.axes.T, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(result.axes @ result.axes.T, torch.eye(4), rtol=0, atol=1e-5)


def test_pca_of_a_line():
    t = torch.tensor([-2.0, -1.0, 0.0, 3.0])
    result = pca(torch.stack([1 + 3 * t, 2 - 4 * t], 1), 1)
    assert result.axes[0].tolist() == pytest.approx([-0.6, 0.8])  # the larger entry is positive
    assert result.codes[:, 0].tolist() == pytest.approx([10, 5, 0, -15])
    assert result.explained_variance_ratio.tolist() == pytest.approx([1])


@pytest.mark.parametrize(
    ("features", "components", "message"),
    [
        (torch.randn(4, 9), 4, "4 components need"), (torch.randn(9, 3), 4, "4 components need"), (torch.randn(4, 9), 0, "0 components"),
        (torch.ones(5, 3), 1, "fewer than 1 directions"), (torch.arange(5.0)[:, None].expand(5, 3), 2, "fewer than 2 directions"),
        (torch.full((5, 3), torch.nan), 1, "not finite"),
    ],
)  # fmt: skip
def test_pca_rejects_wrong_features(features, components, message):
    with pytest.raises(ValueError, match=message):
        pca(features, components)


def clusters():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (50,), generator=generator) * 3  # 0, 3, 6, 9
    centers = torch.randn(10, 2, 3, generator=generator)
    return centers[labels] + 0.7 * torch.randn(50, 2, 3, generator=generator), labels


def slow_silhouette(x, labels):
    """Compute silhouettes by their definition, image by image."""
    values = []
    for n in range(len(x)):
        distance = (x - x[n]).norm(dim=1)
        others = (labels == labels[n]) & (torch.arange(len(x)) != n)
        if not others.any():
            values.append(0.0)
            continue
        a = float(distance[others].mean())
        b = min(float(distance[labels == c].mean()) for c in labels.unique() if c != labels[n])
        values.append((b - a) / max(a, b))
    return torch.tensor(values)


def test_silhouette_equals_its_definition():
    x, labels = clusters()
    expected = slow_silhouette(x.flatten(1), labels)
    torch.testing.assert_close(silhouette(x, labels), expected, rtol=1e-4, atol=1e-5)
    singleton = torch.cat([labels[:-1], torch.tensor([7])])
    expected = slow_silhouette(x.flatten(1), singleton)
    torch.testing.assert_close(silhouette(x, singleton), expected, rtol=1e-4, atol=1e-5)
    assert silhouette(x, singleton)[-1] == 0


def test_silhouette_by_hand():
    x = torch.tensor([[0.0], [2.0], [10.0], [13.0]])
    # The first point has a = 2, b = (10 + 13) / 2; the third has a = 3, b = (10 + 8) / 2.
    assert silhouette(x, torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx(
        [9.5 / 11.5, 7.5 / 9.5, 6 / 9, 9 / 12]
    )


def test_nearest_centroid_leaves_the_image_out_of_its_mean():
    x, labels = clusters()
    flat = x.flatten(1)
    expected = []
    for n in range(len(flat)):
        others = torch.arange(len(flat)) != n
        distance = {
            k: float((flat[others & (labels == k)].mean(0) - flat[n]).norm())
            for k in labels.unique().tolist()
        }
        expected.append(min(distance, key=lambda k: distance[k]) == int(labels[n]))
    assert nearest_centroid(x, labels).tolist() == expected
    assert 0 < sum(expected) < len(expected)  # both results occur
    # The only image of its class.
    assert not nearest_centroid(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))[2]


@pytest.mark.parametrize("quality", [silhouette, nearest_centroid])
def test_wrong_labels(quality):
    with pytest.raises(ValueError, match="at least two classes"):
        quality(torch.randn(4, 2), torch.zeros(4).long())
    with pytest.raises(ValueError, match="one label per image"):
        quality(torch.randn(4, 2), torch.zeros(3).long())


def test_nearest_neighbors_equal_sorting_by_cosine_and_exclude_the_image():
    codes = np.random.default_rng(0).normal(size=(600, 5))  # more than one chunk of rows
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    expected = [
        sorted((j for j in range(600) if j != i), key=lambda j: -unit[i] @ unit[j])[:3]
        for i in range(0, 600, 23)
    ]
    assert nearest_neighbors(torch.from_numpy(codes), 3)[::23].tolist() == expected
    assert nearest_neighbors(torch.from_numpy(10 * codes[:9]), 8).shape == (9, 8)
    with pytest.raises(ValueError, match="between 1 and the 8 other images, got 9"):
        nearest_neighbors(torch.from_numpy(codes[:9]), 9)


def test_grid_layout_is_the_best_of_all_assignments():
    rng = np.random.default_rng(0)
    for n, columns, rows in ((6, 3, 2), (5, 2, 3)):
        points = rng.normal(size=(n, 2)) * (3, 100)
        result = grid_layout(points, columns)
        assert len(set(result.tolist())) == n
        low, high = points.min(0), points.max(0)
        targets = (points - low) / (high - low) * (columns - 1, rows - 1)

        def cost(cells, targets=targets, columns=columns, rows=rows):
            return sum(
                (x - c % columns) ** 2 + (y - (rows - 1 - c // columns)) ** 2
                for (x, y), c in zip(targets, cells, strict=True)
            )

        best = min(itertools.permutations(range(columns * rows), n), key=cost)
        assert cost(result) == pytest.approx(cost(best))
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    # Row 0 is on top, and the second coordinate points up.
    assert grid_layout(corners, 2).tolist() == [2, 3, 0, 1]


def test_tsne_separates_clusters_and_is_deterministic():
    rng = torch.Generator().manual_seed(0)
    centers = torch.randn(4, 30, generator=rng) * 5
    labels = np.repeat(np.arange(4), 25)
    codes = centers[labels] + torch.randn(100, 30, generator=rng)
    points = tsne(codes, seed=0, perplexity=10)
    assert points.shape == (100, 2)
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(100, np.inf))
    assert (labels[distance.argmin(1)] == labels).all()
    np.testing.assert_array_equal(points, tsne(codes, seed=0, perplexity=10))
    with pytest.raises(ValueError, match="at least three images"):
        tsne(codes[:2], seed=0)


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"scikit-learn is missing.*zfnet-deconvnet\[analysis\]"):
        tsne(torch.zeros(4, 4), seed=0)
    with pytest.raises(ImportError, match=r"scipy is missing.*zfnet-deconvnet\[analysis\]"):
        grid_layout(np.zeros((4, 2)), 2)


def test_few_components_of_many_features():
    """Few components of a large matrix are computed by ARPACK; they equal those of the SVD."""
    features = torch.randn(600, 520, generator=torch.Generator().manual_seed(0)).double()
    features[:, :3] *= torch.tensor([9.0, 6.0, 4.0])
    few = pca(features, 3)
    full = pca(features, 100)
    torch.testing.assert_close(few.axes, full.axes[:3], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(few.explained_variance_ratio, full.explained_variance_ratio[:3])
