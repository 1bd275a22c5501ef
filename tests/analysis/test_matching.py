"""Matching against a slow loop and on shifted images; correct keypoints by hand."""

import pytest
import torch

import zfnet
from tests.conftest import random_he
from zfnet.analysis.matching import correct_keypoints, match, sample


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="none", channels=(8, 12, 12, 12, 10), fc_units=8, size=96))


def noise(n, side=96, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layer", ["conv2", "conv5"])
def test_match_equals_a_loop_over_all_positions(model, layer):
    x, points = (
        noise(3),
        torch.tensor([[[30, 40], [61, 20]], [[50, 50], [33, 71]], [[45, 60], [70, 30]]]),
    )
    matches = match(model, x, points, layer)
    t = zfnet.trace(model, x)
    maps, field = t[layer].double(), t.receptive_field(layer)
    first = field.offset + (field.size - 1) / 2
    for i in range(3):
        for p in range(2):
            r, c = ((points[i, p].double() - first) / field.stride).tolist()
            top, left = (
                min(max(int(r), 0), maps.shape[2] - 2),
                min(max(int(c), 0), maps.shape[3] - 2),
            )
            a, b = r - top, c - left  # bilinear interpolation
            corner = maps[i, :, top : top + 2, left : left + 2]
            code = (1 - a) * ((1 - b) * corner[:, 0, 0] + b * corner[:, 0, 1]) + a * (
                (1 - b) * corner[:, 1, 0] + b * corner[:, 1, 1]
            )
            for j in range(3):
                cosine = {
                    (u, v): float(torch.cosine_similarity(code, maps[j, :, u, v], dim=0))
                    for u in range(maps.shape[2])
                    for v in range(maps.shape[3])
                }
                best = max(cosine, key=lambda position: cosine[position])
                assert float(matches.similarity[i, j, p]) == pytest.approx(cosine[best], abs=1e-5)
                u, v = ((matches.position[i, j, p] - first) / field.stride).round().int().tolist()
                assert cosine[u, v] == pytest.approx(cosine[best], abs=1e-5)


def test_match_finds_shifted_content(model):
    """After a shift by the stride, units see the same pixels, except at the border."""
    big, points = noise(1, 160), torch.tensor([[[79, 79], [90, 72]]]).expand(2, -1, -1)
    field = zfnet.trace(model, big[:, :, :96, :96], until="conv2").receptive_field("conv2")
    shift = 2 * field.stride
    # The content moves down.
    x = torch.cat([big[:, :, 32:128, 32:128], big[:, :, 32 - shift : 128 - shift, 32:128]])
    units = (
        field.offset + (field.size - 1) / 2 + field.stride * torch.tensor([[3.0, 4.0], [5.0, 2.0]])
    )
    points = units.expand(2, -1, -1)
    matches = match(model, x, points, "conv2")
    torch.testing.assert_close(matches.position[0, 0], units)
    torch.testing.assert_close(matches.position[0, 1], units + torch.tensor([float(shift), 0.0]))
    torch.testing.assert_close(matches.similarity[0], torch.ones(2, 2), atol=1e-5, rtol=0)
    oversampled = match(model, x, points + field.stride / 2, "conv2", oversampling=2)
    torch.testing.assert_close(oversampled.position[0, 0], units + field.stride / 2)


def test_sample_is_bilinear_and_clamps_to_the_border():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    positions = torch.tensor([[[1.0, 2.0], [0.5, 0.0], [1.25, 2.5], [-3.0, 1.0], [9.0, 9.0]]])
    assert sample(maps, positions)[0, :, 0].tolist() == pytest.approx([6, 2, 7.5, 1, 11])


def test_correct_keypoints_by_hand():
    truth = torch.tensor([[[10, 10]], [[50, 20]]])
    position = torch.tensor([[[[10.0, 10.0]], [[53.0, 24.0]]], [[[30.0, 10.0]], [[50.0, 20.0]]]])
    reach = torch.tensor([100, 50])
    # The error from image 0 to 1 is 5 of 50 pixels; from 1 to 0 it is 20 of 100.
    assert correct_keypoints(position, truth, reach, 0.1)[..., 0].tolist() == [
        [True, True],
        [False, True],
    ]
    assert correct_keypoints(position, truth, reach, 0.09)[..., 0].tolist() == [
        [True, False],
        [False, True],
    ]
    assert correct_keypoints(position, truth, reach, 0.2)[..., 0].all()


def test_invalid_arguments_are_rejected(model):
    with pytest.raises(ValueError, match=r"points must be finite and \(2, P, 2\)"):
        match(model, noise(2), torch.zeros(3, 1, 2))
    for points, options in (
        (torch.zeros(2, 1, 2), {"oversampling": 0}),
        (torch.zeros(2, 1, 2), {"batch": 0}),
        (torch.full((2, 1, 2), torch.nan), {}),
    ):
        with pytest.raises(ValueError, match="finite and|at least 1"):
            match(model, noise(2), points, **options)
    with pytest.raises(zfnet.graph.UnknownLayer, match="conv9"):
        match(model, noise(2), torch.zeros(2, 1, 2), "conv9")
