"""Networks wrapped in DataParallel, torch.compile or AveragedModel."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

import zfnet
from tests.conftest import random_he
from zfnet.checkpoint import CheckpointError, initialize
from zfnet.model import unwrap

WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "compile": functools.partial(torch.compile, backend="eager"),
    "AveragedModel": AveragedModel,
}


def network():
    model = random_he(zfnet.mnist(norm="none"))
    model.cam_head = (torch.ones(10, 32), torch.zeros(10))
    return model


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about hooks
@settings(deadline=None, max_examples=8)
@given(st.lists(st.sampled_from(sorted(WRAPPERS)), min_size=1, max_size=2, unique=True))
def test_wrapped_network_gives_the_results_of_the_network(cache, wrappers):
    model = network()
    wrapped = model
    for name in wrappers:
        wrapped = WRAPPERS[name](wrapped)
    inner = unwrap(wrapped)  # AveragedModel makes a copy
    assert type(inner) is type(model)

    path = cache / "wrapped.safetensors"
    zfnet.save(wrapped, path)
    loaded = zfnet.load(path)
    assert all(torch.equal(v, inner.state_dict()[k]) for k, v in loaded.state_dict().items())
    initialize(wrapped, path)

    assert list(zfnet.describe(wrapped)) == list(zfnet.describe(model))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in zfnet.fold(wrapped))
    images = zfnet.load_scenes(4, size=28, side=32)
    inner.wnids = images.wnids
    assert zfnet.evaluate(wrapped, images) == zfnet.evaluate(inner, images)
    x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    for method in ("cam", "grad_cam", "saliency"):
        a = zfnet.explain(wrapped, x, method, 3)
        torch.testing.assert_close(a.map, zfnet.explain(inner, x, method, 3).map)


def test_search_continues_with_a_wrapped_network(tmp_path):
    images, model = zfnet.load_scenes(6, size=28, side=32), network()
    first = zfnet.top_activations(model, images, ("conv1",), k=2, state=tmp_path / "search")
    second = zfnet.top_activations(
        nn.DataParallel(model), images, ("conv1",), k=2, state=tmp_path / "search"
    )
    assert torch.equal(first["conv1"].value, second["conv1"].value)


def test_networks_that_cannot_be_loaded_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="zfnet, alexnet, mnist, got Sequential"):
        zfnet.save(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "a.safetensors")
    model = zfnet.mnist()
    model.fc4 = nn.Linear(64, 3)
    with pytest.raises(CheckpointError, match=r"cannot save.*fc4\.weight is \(3, 64\)"):
        zfnet.save(model, tmp_path / "b.safetensors")
    nn.utils.parametrizations.weight_norm((model := zfnet.mnist()).fc4)
    with pytest.raises(CheckpointError, match="cannot save.*fc4"):
        zfnet.save(model, tmp_path / "c.safetensors")
    assert not list(tmp_path.iterdir())
