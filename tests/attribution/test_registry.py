"""All methods on several kinds of networks and images; occlusion against Captum."""

import inspect

import captum.attr
import pytest
import torch

import zfnet
from tests.attribution.test_gradients import TARGET, close
from tests.conftest import random_he
from tests.networks import BUILD, SIZE, two_images

NAMES = [
    "saliency", "gradient_x_input", "smoothgrad", "integrated_gradients", "guided_backprop", "deconvnet",
    "cam", "grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "occlusion",
]  # fmt: skip
SMALL = {
    "smoothgrad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "occlusion": {"size": 24, "stride": 20},
}


def test_names_of_methods():
    assert list(zfnet.METHODS) == NAMES
    for name, method in zfnet.METHODS.items():
        assert method.__name__ == name
        doc = inspect.getdoc(method)
        assert all(f"\n{section}:\n" in doc for section in ("Args", "Returns", "Raises", "Example"))


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("build", BUILD)
def test_every_method_on_every_network(build, method):
    model = BUILD[build]()
    x = two_images(model)
    if method == "cam" and build != "resnet18":
        maps = zfnet.trace(model, x)[
            {"mnist": "conv2", "vgg11": "conv8"}.get(build, "conv5")
        ].shape[1]
        model.cam_head = (torch.randn(10, maps), torch.zeros(10))
    a = zfnet.explain(model, x, method, TARGET, **SMALL.get(method, {}))
    assert a.map.shape == (2, 1, *x.shape[2:])
    assert a.method == method
    assert a.target.tolist() == TARGET.tolist()
    assert a.state[0] == "ok"  # Grad-CAM can be all zero
    assert a.state[1] in ("ok", "all zero")
    assert not a.map.requires_grad
    assert a.pixels is None or a.pixels.shape == x.shape
    one = zfnet.explain(model, x[:1], method, int(TARGET[0]), **SMALL.get(method, {}))
    # Occlusion maps are differences of logits, which amplifies rounding.
    close(a.map[:1], one.map, 1e-4 if method == "occlusion" else 1e-5)
    # Methods without randomness.
    if method in ("saliency", "guided_backprop", "deconvnet", "grad_cam", "occlusion"):
        close(zfnet.explain(model, x[:1], method, **SMALL.get(method, {})).map,
              zfnet.explain(model, x[:1], method, model(x[:1]).argmax(1), **SMALL.get(method, {})).map)  # fmt: skip


@pytest.mark.parametrize("method", NAMES)
def test_every_method_on_images_of_one_channel(method):
    """Gray images such as those of MNIST."""
    model = random_he(
        zfnet.zfnet(10, norm="none", channels=(8,) * 5, fc_units=16, size=SIZE, in_channels=1)
    )
    model.cam_head = (torch.randn(10, 8), torch.zeros(10))
    x = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    a = zfnet.explain(model, x, method, **SMALL.get(method, {}))
    assert a.map.shape == x.shape
    assert "not finite" not in a.state


def test_occlusion_equals_captum():
    model = BUILD["resnet18"]().double()  # float64, as maps are small differences of logits
    x = torch.randn(2, 3, SIZE, SIZE + 8, generator=torch.Generator().manual_seed(1)).double()
    expected = captum.attr.Occlusion(model).attribute(
        x, sliding_window_shapes=(3, 16, 16), strides=(3, 8, 8), baselines=0.5, target=TARGET
    )
    close(
        zfnet.explain(model, x, "occlusion", TARGET, size=16, stride=8, fill=0.5).map,
        expected[:, :1].double(),
    )


def test_occlusion_with_a_clipped_window_by_hand():
    """The network sums 3 x 3 pixels; each pixel has the mean drop of the occluders that cover it."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 1, bias=False))
    model[1].weight.data.fill_(1.0)
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    map = zfnet.explain(model, x, "occlusion", 0, size=2, stride=2).map[0, 0]
    assert map.tolist() == [[12, 12, 9], [12, 12, 9], [15, 15, 9]]
    map = zfnet.explain(model, x, "occlusion", 0, size=2, stride=1).map[0, 0]
    assert map.tolist() == [[12, 14, 16], [18, 20, 22], [24, 26, 28]]


def test_invalid_arguments_are_rejected():
    model, x = BUILD["zfnet"](), torch.randn(1, 3, SIZE, SIZE)
    with pytest.raises(
        ValueError, match="'gradcam' is not a method; available: saliency, .*grad_cam"
    ):
        zfnet.explain(model, x, "gradcam")
    with pytest.raises(TypeError, match="steps"):
        zfnet.explain(model, x, "saliency", steps=3)
    with pytest.raises(ValueError, match="not finite"):
        zfnet.explain(model, x * float("nan"), "saliency")
