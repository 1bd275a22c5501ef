"""Networks by name: bundled and torchvision networks, their labels, and errors."""

import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

import zfnet
from zfnet.checkpoint import CheckpointError
from zfnet.data.labels import ILSVRC_2012, imagenet_names, names_digest
from zfnet.networks import imagenet_wnids, load_network, load_structure


@pytest.fixture(scope="module")
def squeezenet():
    """An untrained torchvision network; its seed differs from that of `load_network`."""
    torch.manual_seed(7)
    return models.squeezenet1_1(weights=None).eval()


def test_bundled_network_is_loaded_by_name():
    model = load_network("imagenet65k")
    assert model.size == 224
    assert imagenet_wnids() == tuple(model.wnids)
    assert names_digest(imagenet_wnids()) == ILSVRC_2012


def test_random_weights_are_seeded_and_preserve_the_global_state():
    state = torch.get_rng_state()
    model = load_network("torchvision:squeezenet1_1", "random")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    expected = models.squeezenet1_1(weights=None)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert (model.classes, model.wnids) == (list(imagenet_names()), list(imagenet_wnids()))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_weights_come_from_a_state_dict(suffix, squeezenet, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(squeezenet.state_dict(), path)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    loaded = load_network("torchvision:squeezenet1_1", path)
    with torch.no_grad():
        assert torch.equal(loaded(x), squeezenet(x))


def test_torchvision_weights_are_downloaded_by_default(squeezenet, monkeypatch):
    addresses = []

    def fetch(url, **options):
        addresses.append(url)
        return squeezenet.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    loaded = load_network("torchvision:squeezenet1_1")
    assert addresses == [models.SqueezeNet1_1_Weights.DEFAULT.url]
    for name, tensor in squeezenet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_old_torchvision_state_dicts_are_converted(tmp_path):
    """No BatchNorm counters, old names of DenseNet, and the auxiliary heads of GoogLeNet."""
    torch.manual_seed(7)
    dense = models.densenet121(weights=None).eval()
    state = {
        k.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1.").replace("conv2.", "conv.2.") if "denselayer" in k else k: v
        for k, v in dense.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }  # fmt: skip
    torch.save(state, tmp_path / "densenet.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(
            load_network("torchvision:densenet121", tmp_path / "densenet.pth")(x), dense(x)
        )
    google = models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    torch.save(google.state_dict(), tmp_path / "googlenet.pth")
    loaded = load_network("torchvision:googlenet", tmp_path / "googlenet.pth")
    with torch.no_grad():
        assert torch.equal(loaded(x), google(x))


def test_unusable_weights_are_reported_on_one_line(squeezenet, tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    small = squeezenet.state_dict() | {"classifier.1.weight": torch.zeros(10, 512, 1, 1)}
    torch.save(small, tmp_path / "small.pth")
    torch.save({"model": squeezenet.state_dict(), "epoch": 3}, tmp_path / "training.pth")
    torch.save(squeezenet, tmp_path / "pickle.pth")
    (tmp_path / "broken.pth").write_bytes(b"broken")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    cases = [
        (("resnet18", None), "did you mean torchvision:resnet18?"),
        (("torchvision:resnet19", None), "no classifier 'resnet19'; did you mean resnet18"),
        (("torchvision:fcn_resnet50", "random"), "no classifier 'fcn_resnet50'"),
        (("imagenet65k", "random"), "imagenet65k includes its weights"),
        (("torchvision:squeezenet1_1", None), "cannot download https://.*no route to host.*pass weights"),
        (("torchvision:efficientnet_v2_l", None), "normalized by mean .0.5, 0.5, 0.5."),
        (("torchvision:squeezenet1_1", tmp_path / "none.pth"), "none.pth: no such file"),
        (("torchvision:squeezenet1_1", tmp_path / "none.safetensors"), "none.safetensors: no such file"),
        (("torchvision:squeezenet1_1", tmp_path / "broken.pth"), "broken.pth: not a file of tensors"),
        (("torchvision:squeezenet1_1", tmp_path / "broken.safetensors"), "broken.safetensors: cannot be read"),
        (("torchvision:squeezenet1_1", tmp_path / "pickle.pth"), "pickle.pth: not a file of tensors"),
        (("torchvision:squeezenet1_1", tmp_path / "training.pth"), "expected a state dict .*, got a dict of model, epoch"),
        (("torchvision:squeezenet1_1", tmp_path / "small.pth"), r"classifier.1.weight is \(10, 512, 1, 1\) in the checkpoint"),
        (("torchvision:alexnet", tmp_path / "small.pth"), "the architecture differs"),
    ]  # fmt: skip
    for (name, weights), message in cases:
        with pytest.raises(CheckpointError, match=message) as error:
            load_network(name, weights)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["imagenet65k", "torchvision:regnet_y_128gf", "torchvision:vit_h_14", "torchvision:efficientnet_v2_l"],
)  # fmt: skip
def test_structure_is_on_the_meta_device(name):
    model = load_structure(name)
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"meta"}
    assert len(model.classes) == len(model.wnids) == 1000
    assert not model.training


def test_structure_has_the_shapes_of_the_loaded_network():
    shapes = {name: t.shape for name, t in load_structure("imagenet65k").state_dict().items()}
    assert shapes == {name: t.shape for name, t in zfnet.load("imagenet65k").state_dict().items()}
