"""Projections of everything found: equal to projections one by one, each part of an image passed up once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from tests.conftest import narrow_vgg11, random_he
from zfnet.fast import batched, merging
from zfnet.fast.merging import merge_windows, multiplications
from zfnet.forward import network_steps
from zfnet.graph import UnknownLayer, conv_layers
from zfnet.projection import project_top


def smaller(arch, **options):
    return random_he(
        arch(10, **{"size": 96, "channels": (8, 12, 10, 10, 12), "fc_units": 16} | options)
    )


NETWORKS = {
    "ZFNet": lambda: smaller(zfnet.zfnet),
    "BatchNorm": lambda: zfnet.zfnet(10, size=96, channels=(8, 12, 10, 10, 12), fc_units=16, norm="batch").eval(),
    "paper's input": lambda: smaller(zfnet.zfnet, input="paper"),
    "AlexNet": lambda: smaller(zfnet.alexnet, groups=2),
    "rows that no pooled cell reads": lambda: smaller(zfnet.zfnet, size=100),
    "a pooling right below another": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    ),
    "MNIST": lambda: random_he(zfnet.mnist(norm="none")),
    "no pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 5, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    ),
}  # fmt: skip


SIDES = {"MNIST": 28, "rows that no pooled cell reads": 100, "a pooling right below another": 13}


def searched(name, n=5, k=4):
    torch.manual_seed(1)
    model, side = NETWORKS[name](), SIDES.get(name, 96)
    images = torch.randn(n, 3, side, side)
    model(images)  # the last layer of one takes its size from them
    model.eval()
    with torch.no_grad():
        layers = conv_layers(network_steps(model, images))
    return model, images, zfnet.top_activations(model, images, layers, k)


def check(model, images, top, **options):
    """Every unit once, and as `project` has it; returns how many units there were."""
    left = {layer: found.index >= 0 for layer, found in top.items()}
    count = 0
    for layer, rank, p in project_top(model, images, top, **options):
        assert left[layer][p.channel, rank].all()
        left[layer][p.channel, rank] = False
        found = top[layer]
        assert torch.equal(p.position, found.position[p.channel, rank])
        assert torch.equal(p.activation, found.value[p.channel, rank])
        x = images[found.index[p.channel, rank]].contiguous(memory_format=torch.channels_last)
        alone = zfnet.project(model, x, layer, p.channel, p.position, crop=True)
        assert (p.pixels - alone.pixels).abs().max() <= 1e-5 * alone.pixels.abs().max()
        assert torch.equal(p.corner, alone.corner)
        assert torch.equal(p.box, alone.box)
        count += len(rank)
    assert not any(rest.any() for rest in left.values())
    return count


@pytest.mark.parametrize("name", NETWORKS)
def test_all_projections_at_once_equal_those_one_by_one(name):
    model, images, top = searched(name)
    assert check(model, images, top) == sum(found.index.numel() for found in top.values())


def test_of_a_network_with_a_pooling_between_any_two_layers():
    model = narrow_vgg11()
    images = torch.randn(2, 3, 224, 224)
    top = zfnet.top_activations(model, images, ("conv2", "conv4", "conv6"), 1)
    for found in top.values():
        found.index[torch.arange(len(found.index)) % 4 > 0] = -1  # a few are enough
    assert check(model, images, top) == 4 + 8 + 16


@pytest.mark.reference
def test_a_place_that_no_image_takes_is_left_out():
    model, images, top = searched("ZFNet", n=2, k=4)
    assert check(model, images, top) == 2 * sum(len(found.index) for found in top.values())


def test_of_nothing_there_is_nothing():
    model, images, top = searched("ZFNet", n=2, k=1)
    for found in top.values():
        found.index[:] = -1
    assert list(project_top(model, images, top)) == []


@pytest.mark.parametrize("bound", [{"MAX_SWITCHES": 1}, {"CROWD": 1}, {"CROWD": 0}, {"CHUNK": 1}])
def test_the_bounds_change_nothing(bound, monkeypatch):
    for name, value in bound.items():
        monkeypatch.setattr(merging if name == "CROWD" else batched, name, value)
    torch.manual_seed(2)
    model, images = smaller(zfnet.zfnet, size=224), torch.randn(3, 3, 224, 224)
    top = zfnet.top_activations(model, images, k=2)
    for found in top.values():
        found.index[2:] = -1  # so few that some windows hold no unit of some layer
    check(model, images, top)


def test_a_batch_bounds_what_is_yielded():
    model, images, top = searched("ZFNet", n=3, k=2)
    assert max(len(rank) for _, rank, _ in project_top(model, images, top, batch=3)) == 3
    check(model, images, top, batch=3)
    only = [layer for layer, _, _ in project_top(model, images, top, "conv3")]
    assert set(only) == {"conv3"}


def test_a_data_set_of_labelled_items_is_read_item_by_item():
    model, images, top = searched("ZFNet", n=3, k=2)
    items = [(image, 7) for image in images]
    both = zip(project_top(model, images, top), project_top(model, items, top), strict=True)
    assert all(torch.equal(a.pixels, b.pixels) for (_, _, a), (_, _, b) in both)


def test_gradients_the_mode_and_the_weights_stay_the_readers():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Dropout(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 4 * 4, 3),
    )  # fmt: skip
    images = torch.randn(3, 3, 16, 16)
    top = zfnet.top_activations(model, images, ("conv1", "conv2"), 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.enable_grad():
        for _ in project_top(model.train(), images, top):
            assert torch.is_grad_enabled()
            assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_of_another_precision():
    model, images, top = searched("ZFNet", n=2, k=1)
    (_, _, p), *_ = project_top(model.double(), images.double(), top, "conv2")
    assert p.pixels.dtype == torch.float64


@pytest.mark.reference
def test_what_cannot_be_projected_is_named():
    model, images, top = searched("ZFNet", n=3, k=2)
    dense = zfnet.top_activations(model, images, ("conv5", "fc6"), 2)
    with pytest.raises(UnknownLayer, match="fc6"):
        list(project_top(model, images, dense))
    with pytest.raises(UnknownLayer, match="conv9"):
        list(project_top(model, images, top, "conv9"))
    with pytest.raises(ValueError, match="3 images, not 2"):
        list(project_top(model, images[:2], top))
    with pytest.raises(IndexError, match="conv1"):
        list(project_top(model, torch.zeros(3, 3, 64, 64), top))
    with pytest.raises(IndexError, match="conv3"):
        list(project_top(smaller(zfnet.zfnet, channels=(8, 12, 9, 10, 12)), images, top))
    with pytest.raises(ValueError, match="several sizes"):
        list(project_top(model, [images[0], *torch.zeros(2, 3, 100, 100)], top))
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        list(project_top(model, images, top))
    with pytest.raises(ValueError, match="batch"):
        list(project_top(model, images, top, batch=0))


def test_the_way_up_is_passed_once_where_units_crowd(monkeypatch):
    model, images, top = searched("ZFNet", n=2, k=2)
    passed = []
    real = batched.trace_windows
    monkeypatch.setattr(
        batched,
        "trace_windows",
        lambda s, x, image, window: passed.append(window.size) or real(s, x, image, window),
    )
    list(project_top(model, images, top, ("conv3", "conv4", "conv5")))
    units = sum(top[layer].index.numel() for layer in ("conv3", "conv4", "conv5"))
    # 5 x 5 pooled cells hold what all of an image see.
    assert sum(len(size) for size in passed) <= 4 < units == 64


COST = multiplications(
    network_steps(zfnet.zfnet(10, fc_units=8), torch.zeros(1, 3, 224, 224), "pool2"), (224, 224)
)


def test_the_cost_is_the_count_of_multiplications():
    assert COST.shape == (14, 14)
    # A cell of pool2 sees 3 x 3 of conv2 and 19 x 19 of conv1.
    assert COST[1, 1] == 9 * 256 * 96 * 25 + 19**2 * 96 * 3 * 49
    whole = zfnet.describe(zfnet.zfnet(10, fc_units=8))
    assert COST[13, 13] <= sum(row.macs for row in whole if row.name in ("conv1", "conv2"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), *[st.integers(0, 12)] * 2, *[st.integers(1, 7)] * 2),
        min_size=1,
        max_size=25,
    )
)
def test_merged_windows_cover_their_own_and_cost_no_more(drawn):
    image, low, size = np.array(drawn)[:, 0], np.array(drawn)[:, 1:3], np.array(drawn)[:, 3:]
    high = np.minimum(low + size, 13)
    owner, of, lower, upper = merge_windows(image, low, high, COST)
    assert (of[owner] == image).all()
    assert (lower[owner] <= low).all()
    assert (upper[owner] >= high).all()
    assert sorted(set(owner.tolist())) == list(range(len(of)))
    different = np.unique(np.concatenate([image[:, None], low, high], 1), axis=0)
    before = COST[tuple((different[:, 3:] - different[:, 1:3]).T)].sum()
    assert COST[tuple((upper - lower).T)].sum() <= before
    for box in range(len(of)):  # none is larger than what it holds
        assert (lower[box] == low[owner == box].min(0)).all()
        assert (upper[box] == high[owner == box].max(0)).all()


@pytest.mark.parametrize(("step", "windows"), [(1, 1), (6, 81)])
def test_a_crowd_becomes_one_window_only_where_that_is_cheaper(step, windows):
    low = step * np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)
    steps = network_steps(zfnet.zfnet(10, fc_units=8), torch.zeros(1, 3, 224, 224), "pool1")
    found = merge_windows(np.zeros(81, dtype=int), low, low + 1, multiplications(steps, (224, 224)))
    assert len(low) > merging.CROWD
    assert len(found[1]) == windows
