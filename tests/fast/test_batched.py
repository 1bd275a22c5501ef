"""Batched projections of top activations equal individual projections."""

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
from zfnet.graph import UnknownLayer, conv_layers, network_steps
from zfnet.projection import project_top


def small_network(arch, **options):
    return random_he(
        arch(10, **{"size": 96, "channels": (8, 12, 10, 10, 12), "fc_units": 16} | options)
    )


NETWORKS = {
    "ZFNet": lambda: small_network(zfnet.zfnet),
    "BatchNorm": lambda: zfnet.zfnet(10, size=96, channels=(8, 12, 10, 10, 12), fc_units=16, norm="batch").eval(),
    "paper's input": lambda: small_network(zfnet.zfnet, input="paper"),
    "AlexNet": lambda: small_network(zfnet.alexnet, groups=2),
    "rows without a pooled cell": lambda: small_network(zfnet.zfnet, size=100),
    "two successive poolings": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    ),
    "MNIST": lambda: random_he(zfnet.mnist(norm="none")),
    "no pooling": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 5, 2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    ),
}  # fmt: skip


SIDES = {"MNIST": 28, "rows without a pooled cell": 100, "two successive poolings": 13}


def search(name, n=5, k=4):
    torch.manual_seed(1)
    model, side = NETWORKS[name](), SIDES.get(name, 96)
    images = torch.randn(n, 3, side, side)
    model(images)  # initialize lazy layers
    model.eval()
    with torch.no_grad():
        layers = conv_layers(network_steps(model, images))
    return model, images, zfnet.top_activations(model, images, layers, k)


def check_projections(model, images, top, **options):
    """Check that every unit occurs once and equals `project`; return the number of units."""
    remaining = {layer: table.index >= 0 for layer, table in top.items()}
    count = 0
    for layer, rank, p in project_top(model, images, top, **options):
        assert remaining[layer][p.channel, rank].all()
        remaining[layer][p.channel, rank] = False
        table = top[layer]
        assert torch.equal(p.position, table.position[p.channel, rank])
        assert torch.equal(p.activation, table.value[p.channel, rank])
        x = images[table.index[p.channel, rank]].contiguous(memory_format=torch.channels_last)
        single = zfnet.project(model, x, layer, p.channel, p.position, crop=True)
        assert (p.pixels - single.pixels).abs().max() <= 1e-5 * single.pixels.abs().max()
        assert torch.equal(p.corner, single.corner)
        assert torch.equal(p.box, single.box)
        count += len(rank)
    assert not any(mask.any() for mask in remaining.values())
    return count


@pytest.mark.parametrize("name", NETWORKS)
def test_batched_projections_equal_individual_ones(name):
    model, images, top = search(name)
    assert check_projections(model, images, top) == sum(
        table.index.numel() for table in top.values()
    )


def test_network_with_pooling_after_every_layer():
    model = narrow_vgg11()
    images = torch.randn(2, 3, 224, 224)
    top = zfnet.top_activations(model, images, ("conv2", "conv4", "conv6"), 1)
    for table in top.values():
        table.index[torch.arange(len(table.index)) % 4 > 0] = -1  # keep every fourth channel
    assert check_projections(model, images, top) == 4 + 8 + 16


@pytest.mark.reference
def test_empty_ranks_are_skipped():
    model, images, top = search("ZFNet", n=2, k=4)
    assert check_projections(model, images, top) == 2 * sum(
        len(table.index) for table in top.values()
    )


def test_empty_table_gives_no_projections():
    model, images, top = search("ZFNet", n=2, k=1)
    for table in top.values():
        table.index[:] = -1
    assert list(project_top(model, images, top)) == []


@pytest.mark.parametrize("bound", [{"MAX_SWITCHES": 1}, {"CROWD": 1}, {"CROWD": 0}, {"CHUNK": 1}])
def test_results_do_not_depend_on_internal_limits(bound, monkeypatch):
    for name, value in bound.items():
        monkeypatch.setattr(merging if name == "CROWD" else batched, name, value)
    torch.manual_seed(2)
    model, images = small_network(zfnet.zfnet, size=224), torch.randn(3, 3, 224, 224)
    top = zfnet.top_activations(model, images, k=2)
    for table in top.values():
        table.index[2:] = -1  # some windows have no unit of some layer
    check_projections(model, images, top)


def test_batch_limits_the_yielded_projections():
    model, images, top = search("ZFNet", n=3, k=2)
    assert max(len(rank) for _, rank, _ in project_top(model, images, top, batch=3)) == 3
    check_projections(model, images, top, batch=3)
    only = [layer for layer, _, _ in project_top(model, images, top, "conv3")]
    assert set(only) == {"conv3"}


def test_data_sets_with_labels_are_accepted():
    model, images, top = search("ZFNet", n=3, k=2)
    items = [(image, 7) for image in images]
    both = zip(project_top(model, images, top), project_top(model, items, top), strict=True)
    assert all(torch.equal(a.pixels, b.pixels) for (_, _, a), (_, _, b) in both)


def test_gradient_mode_training_mode_and_weights_are_preserved():
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


def test_double_precision_network():
    model, images, top = search("ZFNet", n=2, k=1)
    (_, _, p), *_ = project_top(model.double(), images.double(), top, "conv2")
    assert p.pixels.dtype == torch.float64


@pytest.mark.reference
def test_errors_name_the_cause():
    model, images, top = search("ZFNet", n=3, k=2)
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
        list(project_top(small_network(zfnet.zfnet, channels=(8, 12, 9, 10, 12)), images, top))
    with pytest.raises(ValueError, match="several sizes"):
        list(project_top(model, [images[0], *torch.zeros(2, 3, 100, 100)], top))
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        list(project_top(model, images, top))
    with pytest.raises(ValueError, match="batch"):
        list(project_top(model, images, top, batch=0))


def test_nearby_units_share_one_forward_pass(monkeypatch):
    model, images, top = search("ZFNet", n=2, k=2)
    window_sizes = []
    original = batched.trace_windows
    monkeypatch.setattr(
        batched,
        "trace_windows",
        lambda s, x, image, window: (
            window_sizes.append(window.size) or original(s, x, image, window)
        ),
    )
    list(project_top(model, images, top, ("conv3", "conv4", "conv5")))
    units = sum(top[layer].index.numel() for layer in ("conv3", "conv4", "conv5"))
    # A window of 5 x 5 pooled cells contains all units of an image.
    assert sum(len(size) for size in window_sizes) <= 4 < units == 64


COST = multiplications(
    network_steps(zfnet.zfnet(10, fc_units=8), torch.zeros(1, 3, 224, 224), "pool2"), (224, 224)
)


def test_cost_is_the_number_of_multiplications():
    assert COST.shape == (14, 14)
    # A cell of pool2 depends on 3 x 3 cells of conv2 and 19 x 19 cells of conv1.
    assert COST[1, 1] == 9 * 256 * 96 * 25 + 19**2 * 96 * 3 * 49
    rows = zfnet.describe(zfnet.zfnet(10, fc_units=8))
    assert COST[13, 13] <= sum(row.macs for row in rows if row.name in ("conv1", "conv2"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), *[st.integers(0, 12)] * 2, *[st.integers(1, 7)] * 2),
        min_size=1,
        max_size=25,
    )
)
def test_merged_windows_cover_their_units_and_cost_no_more(windows):
    image, low, size = np.array(windows)[:, 0], np.array(windows)[:, 1:3], np.array(windows)[:, 3:]
    high = np.minimum(low + size, 13)
    owner, image_of, lower, upper = merge_windows(image, low, high, COST)
    assert (image_of[owner] == image).all()
    assert (lower[owner] <= low).all()
    assert (upper[owner] >= high).all()
    assert sorted(set(owner.tolist())) == list(range(len(image_of)))
    unique = np.unique(np.concatenate([image[:, None], low, high], 1), axis=0)
    unmerged_cost = COST[tuple((unique[:, 3:] - unique[:, 1:3]).T)].sum()
    assert COST[tuple((upper - lower).T)].sum() <= unmerged_cost
    for box in range(len(image_of)):  # windows are as small as possible
        assert (lower[box] == low[owner == box].min(0)).all()
        assert (upper[box] == high[owner == box].max(0)).all()


@pytest.mark.parametrize(("step", "windows"), [(1, 1), (6, 81)])
def test_windows_are_merged_only_if_that_is_cheaper(step, windows):
    low = step * np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)
    steps = network_steps(zfnet.zfnet(10, fc_units=8), torch.zeros(1, 3, 224, 224), "pool1")
    merged = merge_windows(
        np.zeros(81, dtype=int), low, low + 1, multiplications(steps, (224, 224))
    )
    assert len(low) > merging.CROWD
    assert len(merged[1]) == windows
