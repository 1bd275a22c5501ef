"""Random directions are uniform; cosines against loops; sampled vectors of a known layer."""

import numpy as np
import pytest
import torch
from torch import nn

from zfnet.analysis.directions import random_directions, sample_vectors, similarity


def test_random_directions_are_orthonormal_and_uniform():
    generator = torch.Generator().manual_seed(0)
    v = random_directions(64, 40, generator)
    torch.testing.assert_close(v @ v.T, torch.eye(40), rtol=0, atol=1e-5)
    # 8,000 directions of four units.
    directions = torch.cat([random_directions(4, 4, generator) for _ in range(2000)])
    assert directions.mean(0).abs().max() < 0.02  # the standard error is 0.5 / sqrt(8000) = 0.006
    torch.testing.assert_close(
        directions.T @ directions / len(directions), torch.eye(4) / 4, rtol=0, atol=0.01
    )
    with pytest.raises(ValueError, match="between 1 and the 4 units, got 5"):
        random_directions(4, 5, generator)


def test_similarity_equals_the_mean_cosine_of_all_pairs():
    rng = np.random.default_rng(0)
    codes, index = rng.normal(size=(20, 7)), np.array([[0, 3, 5, 9], [2, 2, 2, 2], [1, 4, 19, 6]])
    result = similarity(torch.from_numpy(codes), torch.from_numpy(index))
    for row, value in zip(index, result.tolist(), strict=True):
        pairs = [(i, j) for a, i in enumerate(row) for b, j in enumerate(row) if a != b]
        cosines = [
            codes[i] @ codes[j] / np.linalg.norm(codes[i]) / np.linalg.norm(codes[j])
            for i, j in pairs
        ]
        assert value == pytest.approx(np.mean(cosines))
    assert result[1] == pytest.approx(1)
    with_zeros = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    sets = torch.tensor([[0, 1, 2], [1, 3, 1]])
    # Cosines with zero are 0.
    assert similarity(with_zeros, sets).tolist() == pytest.approx([1 / 3, 0])
    with pytest.raises(ValueError, match="at least two"):
        similarity(torch.from_numpy(codes), torch.from_numpy(index[:, :1]))


def test_sampled_vectors_are_activations_of_one_position():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)).eval()
    net[0].weight.data, net[0].bias.data = torch.eye(3)[:2, :, None, None], torch.zeros(2)
    images = [torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    result = sample_vectors(
        net, images, "conv1", torch.Generator().manual_seed(0), per_image=3, batch=4
    )
    assert result.shape == (18, 2)
    for row, vector in enumerate(result):
        positions = images[row // 3][:2].flatten(1).T
        assert (positions == vector).all(1).any()  # both units at the same position
    assert len({tuple(v) for v in result.tolist()}) > 12
    # A dense layer has one position.
    assert sample_vectors(net, images, "fc2", torch.Generator(), per_image=3).shape == (6, 5)
