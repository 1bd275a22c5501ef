"""Insertion, deletion, the pointing game and randomization against arrays by hand and SciPy."""

import pytest
import scipy.stats
import torch
from torch import nn

import zfnet
from tests.networks import SIZE, small_zfnet
from zfnet.analysis.faithfulness import (
    auc,
    descending_ranks,
    pointing_game,
    randomize_layers,
    rank_correlation,
    replacement_curve,
)


class LinearNetwork(nn.Module):
    """A linear network for one-channel images, with logits w . x and 0."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        logit = (x * self.weight).sum((1, 2, 3))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def test_deletion_and_insertion_by_hand():
    weight = torch.tensor([[1.0, -2.0], [4.0, 3.0]])
    model, x = LinearNetwork(weight), torch.ones(2, 1, 2, 2)
    map = torch.stack([weight, -weight])[:, None]
    # Largest first, and smallest first.
    logits = torch.tensor([[6.0, 2, -1, -2, 0], [6.0, 8, 7, 4, 0]])
    deletion = replacement_curve(model, x, 0.0, map, 0, steps=4, batch=3)
    torch.testing.assert_close(deletion, logits.sigmoid().detach())
    insertion = replacement_curve(model, 0.0, x, map, torch.tensor([0, 1]), steps=4)
    torch.testing.assert_close(insertion[0], torch.tensor([0.0, 4, 7, 8, 6]).sigmoid())
    torch.testing.assert_close(insertion[1], (-torch.tensor([0.0, -2, -1, 2, 6])).sigmoid())
    assert insertion.shape == (2, 5)
    coarse = replacement_curve(model, x, 0.0, map, 0, steps=2)  # half of the pixels per step
    torch.testing.assert_close(coarse, deletion[:, ::2])


def test_old_and_new_broadcast():
    model, x, map = LinearNetwork(torch.ones(2, 2)), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    gray = torch.full_like(x, 0.5)
    for one in (0.5, gray[:1], gray[:1, :, :1, :1]):
        assert torch.equal(
            replacement_curve(model, one, x, map, 0), replacement_curve(model, gray, x, map, 0)
        )
        assert torch.equal(
            replacement_curve(model, x, one, map, 0), replacement_curve(model, x, gray, map, 0)
        )


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_images_and_steps_share_the_passes(batch):
    """All passes but the last have `batch` images, and the curves are those of single images."""
    torch.manual_seed(0)
    model, x, map = LinearNetwork(torch.randn(4, 4)), torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4)
    sizes = []

    def count(module, inputs):
        if isinstance(inputs[0], torch.Tensor):  # not a proxy of torch.fx
            sizes.append(len(inputs[0]))

    model.register_forward_pre_hook(count)
    steps, target = 3, torch.tensor([0, 1, 1, 0, 1])
    curves = replacement_curve(model, x, 0.25, map, target, steps=steps, batch=batch)
    passes, rest = divmod(5 * (steps + 1), batch)
    assert sizes == [batch] * passes + [rest] * (rest > 0)
    for n in range(5):
        order = map[n].flatten().argsort(descending=True)
        for step in range(steps + 1):
            image = x[n : n + 1].clone()
            image.view(-1)[order[: step * 16 // steps]] = 0.25
            expected = model(image).softmax(1)[0, target[n]]
            torch.testing.assert_close(curves[n, step], expected.detach())


def test_auc_by_hand():
    curve = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    assert auc(curve).tolist() == [0.5, 1]


def test_ties_are_broken_at_random():
    values = torch.zeros(1, 1000)
    ranks = descending_ranks(values, torch.Generator().manual_seed(0))[0]
    assert sorted(ranks.tolist()) == list(range(1000))
    assert abs(scipy.stats.spearmanr(ranks, range(1000)).statistic) < 0.1
    values[0, 700], values[0, 3] = 2, -1
    ranks = descending_ranks(values, torch.Generator().manual_seed(0))[0]
    assert (int(ranks[700]), int(ranks[3])) == (0, 999)


def test_pointing_game_by_hand():
    mask = torch.zeros(5, 6, 7, dtype=torch.bool)
    mask[:, 2:4, 3:5] = True
    map = torch.zeros(5, 1, 6, 7)
    map[0, 0, 3, 4] = 1  # on the object
    map[1, 0, 0, 3] = 1  # two rows above it
    map[2, 0, 3, 4] = map[2, 0, 0, 0] = 1  # one of two maxima is on the object
    map[4, 0, 3, 4] = float("nan")
    hits = pointing_game(map, mask)
    # A flat map scores the share of the object.
    torch.testing.assert_close(hits, torch.tensor([1.0, 0, 0.5, 4 / 42, 0]))
    assert pointing_game(map, mask, 2)[:2].tolist() == [1, 1]
    map[1] = 0
    map[1, 0, 1, 2] = 1  # diagonal: at a distance of 1.4
    assert pointing_game(map, mask, 1)[1] == 0
    assert pointing_game(map, mask, 2)[1] == 1


def test_rank_correlation_equals_scipy():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 1, 9, 8, generator=generator)
    b = a + torch.randn(a.shape, generator=generator)
    a, b = a.relu(), (3 * b).round()  # many equal values
    expected = [
        float(scipy.stats.spearmanr(m.flatten(), n.flatten()).statistic)
        for m, n in zip(a, b, strict=True)
    ]
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor(expected, dtype=torch.float64))
    assert rank_correlation(a, a.exp()).tolist() == pytest.approx([1] * 4)
    assert rank_correlation(a, torch.zeros_like(a)).isnan().all()


def test_randomize_layers_randomizes_from_the_top():
    model = small_zfnet()
    model.cam_head = (torch.ones(10, 16), torch.zeros(10))
    original = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = []
    for name, copy in randomize_layers(model, torch.Generator().manual_seed(0)):
        names.append(name)
        for layer in ("conv1", "conv3", "fc6", "fc8"):
            randomized, trained = (
                copy.get_submodule(layer).weight.detach(),
                original[f"{layer}.weight"],
            )
            assert torch.equal(randomized, trained) == (layer not in names)
            assert float(randomized.std()) == pytest.approx(float(trained.std()), rel=0.2)
        assert torch.is_grad_enabled()
        assert not any(p.isnan().any() for p in copy.parameters())
    assert names == ["fc8", "fc7", "fc6", "conv5", "conv4", "conv3", "conv2", "conv1"]
    assert all(torch.equal(p, original[name]) for name, p in model.named_parameters())
    assert (model.cam_head[0] == 1).all()
    second_run = next(iter(randomize_layers(model, torch.Generator().manual_seed(0))))[1]
    first_run = next(iter(randomize_layers(model, torch.Generator().manual_seed(0))))[1]
    assert torch.equal(second_run.fc8.weight, first_run.fc8.weight)


def test_randomization_changes_the_saliency():
    model, x = (
        small_zfnet(),
        torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    )
    before = zfnet.explain(model, x, "saliency", 3).map
    last = [
        zfnet.explain(m, x, "saliency", 3).map
        for _, m in randomize_layers(model, torch.Generator().manual_seed(0))
    ][-1]
    assert rank_correlation(before, last).max() < 0.9
    assert torch.equal(zfnet.explain(model, x, "saliency", 3).map, before)


def test_invalid_arguments_are_rejected():
    model, x = LinearNetwork(torch.ones(2, 2)), torch.ones(2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"map must be finite and \(2, 1, H, W\)"):
        replacement_curve(model, x, 0.0, x[:1], 0)
    with pytest.raises(ValueError, match="map must be finite"):
        replacement_curve(model, x, 0.0, x * float("nan"), 0)
    with pytest.raises(ValueError, match="steps and batch must be at least 1"):
        replacement_curve(model, x, 0.0, x, 0, steps=0)
    with pytest.raises(ValueError, match="class from 0 to 1"):
        replacement_curve(model, x, 0.0, x, 2)
    with pytest.raises(ValueError, match="old or new must be images"):
        replacement_curve(model, 0.0, 1.0, x, 0)
    with pytest.raises(ValueError, match="new .* does not broadcast"):
        replacement_curve(model, x, torch.zeros(5), x, 0)
    with pytest.raises(ValueError, match="mask"):
        pointing_game(x, x[:, 0])


def test_rank_correlation_of_a_map_with_nan_is_nan():
    a = torch.rand(2, 1, 5, 5)
    b = a.clone()
    b[0, 0, 0, 0] = torch.nan
    assert rank_correlation(a, b)[0].isnan()
    assert rank_correlation(a, b)[1] == pytest.approx(1)
