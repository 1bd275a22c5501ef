"""Principal components and clusters against scikit-learn, and against arrays by hand."""

import pytest
import torch

from zfnet.methods.embedding import nearest_centroid, pca, silhouette


@pytest.mark.parametrize("shape", [(60, 8), (20, 3, 7, 5)], ids=["more images", "more features"])
def test_pca_is_scikit_learns(shape):
    sklearn = pytest.importorskip("sklearn.decomposition")
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 4, shape[-1]) + 3
    found = pca(x, 4)
    reference = sklearn.PCA(4, svd_solver="full").fit(x.flatten(1).double().numpy())
    axes = torch.from_numpy(reference.components_)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # a component has no sign of its own
    torch.testing.assert_close(found.axes.double(), axes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.share.double(), torch.from_numpy(reference.explained_variance_ratio_), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(found.codes, (x.flatten(1) - found.mean) @ found.axes.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.axes @ found.axes.T, torch.eye(4), rtol=0, atol=1e-5)


def test_pca_of_a_line():
    t = torch.tensor([-2.0, -1.0, 0.0, 3.0])
    found = pca(torch.stack([1 + 3 * t, 2 - 4 * t], 1), 1)
    assert found.axes[0].tolist() == pytest.approx([-0.6, 0.8])  # the larger entry is positive
    assert found.codes[:, 0].tolist() == pytest.approx([10, 5, 0, -15])
    assert found.share.tolist() == pytest.approx([1])


@pytest.mark.parametrize(
    ("features", "components", "message"),
    [
        (torch.randn(4, 9), 4, "4 components need"), (torch.randn(9, 3), 4, "4 components need"), (torch.randn(4, 9), 0, "0 components"),
        (torch.ones(5, 3), 1, "fewer than 1 directions"), (torch.arange(5.0)[:, None].expand(5, 3), 2, "fewer than 2 directions"),
        (torch.full((5, 3), torch.nan), 1, "not finite"),
    ],
)  # fmt: skip
def test_pca_of_too_little_is_an_error(features, components, message):
    with pytest.raises(ValueError, match=message):
        pca(features, components)


def clusters():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (50,), generator=generator) * 3  # 0, 3, 6, 9
    centres = torch.randn(10, 2, 3, generator=generator)
    return centres[labels] + 0.7 * torch.randn(50, 2, 3, generator=generator), labels


def test_silhouette_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    x, labels = clusters()
    expected = torch.from_numpy(metrics.silhouette_samples(x.flatten(1).numpy(), labels.numpy()))
    torch.testing.assert_close(silhouette(x, labels), expected.float(), rtol=1e-4, atol=1e-5)
    alone = torch.cat([labels[:-1], torch.tensor([7])])
    expected = torch.from_numpy(metrics.silhouette_samples(x.flatten(1).numpy(), alone.numpy()))
    torch.testing.assert_close(silhouette(x, alone), expected.float(), rtol=1e-4, atol=1e-5)
    assert silhouette(x, alone)[-1] == 0


def test_silhouette_by_hand():
    x = torch.tensor([[0.0], [2.0], [10.0], [13.0]])
    # the first: a = 2, b = (10 + 13) / 2; the third: a = 3, b = (10 + 8) / 2
    assert silhouette(x, torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx([9.5 / 11.5, 7.5 / 9.5, 6 / 9, 9 / 12])


def test_nearest_centroid_leaves_the_image_itself_out():
    x, labels = clusters()
    flat = x.flatten(1)
    expected = []
    for n in range(len(flat)):
        others = torch.arange(len(flat)) != n
        distance = {k: float((flat[others & (labels == k)].mean(0) - flat[n]).norm()) for k in labels.unique().tolist()}
        expected.append(min(distance, key=lambda k: distance[k]) == int(labels[n]))
    assert nearest_centroid(x, labels).tolist() == expected
    assert 0 < sum(expected) < len(expected)  # both answers occur
    assert not nearest_centroid(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))[2]  # alone in its class


@pytest.mark.parametrize("quality", [silhouette, nearest_centroid])
def test_wrong_labels(quality):
    with pytest.raises(ValueError, match="two classes"):
        quality(torch.randn(4, 2), torch.zeros(4).long())
    with pytest.raises(ValueError, match="one label for each of 4"):
        quality(torch.randn(4, 2), torch.zeros(3).long())
