"""Networks that break assumptions: images that interact, one logit, half precision, functions for modules.

Each test states a property of a kind of network, and draws the method, the network and the images.
"""

import functools
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from zfnet.analysis.decisions import confidence
from zfnet.analysis.responses import responses
from zfnet.attribution.base import Attribution
from zfnet.attribution.cam import grad_cam, grad_cam_plus_plus
from zfnet.feature_extraction import feature_extractor
from zfnet.graph import UnsupportedNetwork
from zfnet.model import evaluating
from zfnet.outputs import logits_of, probability_function
from zfnet.synthesis.adversarial import fgsm, pgd, rubbish
from zfnet.synthesis.ascent import ascend
from zfnet.synthesis.deepfool import deepfool
from zfnet.synthesis.dream import dream
from zfnet.synthesis.inversion import invert
from zfnet.synthesis.style import style_transfer

SIDE = 12  # pixels
few = settings(max_examples=12, deadline=None)


class Net(nn.Module):
    """Two convolutions, global pooling and a dense layer: 12 x 12 pixels, maps of 6 x 6."""

    def __init__(self, norm=None, head=None, classes=4, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.norm, self.head = norm or nn.Identity(), head or nn.Identity()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.fc = nn.Linear(8, classes)
        self.eval()

    def forward(self, x):
        x = F.max_pool2d(self.relu1(self.norm(self.conv1(x))), 2)
        return self.head(self.fc(self.relu2(self.conv2(x)).mean((2, 3))))


class BatchStatistics(nn.Module):
    """Normalizes by the batch, by a function."""

    def forward(self, x):
        return F.batch_norm(x, None, None, training=True)


class Function(nn.Module):
    """A module from a function, so that heads can be spelled in several ways."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def images(seed=0, n=2):
    return (
        torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), device="cpu")
        * 2
        - 1
    )


def attribute(method):
    return lambda model, x, **batch: zfnet.explain(model, x, method, **batch).map


WITH_BATCH = {  # their `batch` must not change the result
    "smoothgrad": lambda m, x, **b: zfnet.explain(m, x, "smoothgrad", samples=3, **b).map,
    "integrated_gradients": lambda m, x, **b: zfnet.explain(
        m, x, "integrated_gradients", steps=3, **b
    ).map,
    "occlusion": attribute("occlusion"),
    "fgsm": lambda m, x, **b: fgsm(m, x, epsilon=4.0, **b).pixels,
    "pgd": lambda m, x, **b: pgd(m, x, epsilon=4.0, steps=2, **b).pixels,
    "rubbish": lambda m, x, **b: rubbish(m, x, 1, steps=2, **b).pixels,
    "deepfool": lambda m, x, **b: deepfool(m, x, steps=2, **b).pixels,
    "ascend": lambda m, x, **b: ascend(m, x, 1, steps=2, **b).pixels,
    "ascend conv2": lambda m, x, **b: ascend(m, x, 1, layer="conv2", steps=2, **b).pixels,
    "dream": lambda m, x, **b: dream(m, x, "conv2", octaves=1, steps=2, **b).pixels,
    "style": lambda m, x, **b: style_transfer(
        m, x, x.mean(0, keepdim=True).flip(3) if len(x) > 9 else images(9)[:1],
        content_layer="conv2", style_layers="conv2", steps=2, **b,
    ).pixels,
    "confidence": lambda m, x, **b: confidence(m, x, None, **b).logits,
    "occlude": lambda m, x, **b: zfnet.occlude(m, x, 0, size=4, stride=4, **b).logit.view(len(x), 3, 3),
}  # fmt: skip
METHODS = {name: attribute(name) for name in zfnet.METHODS if name not in WITH_BATCH} | WITH_BATCH
METHODS["grad_cam conv2"] = lambda m, x: grad_cam(m, x, layer="conv2").map
METHODS["features"] = lambda m, x: feature_extractor(m, x, ("conv2",))(x)["conv2"]
NORMS = {
    "module": functools.partial(nn.BatchNorm2d, 6, track_running_stats=False),
    "function": BatchStatistics,
    "none": nn.Identity,
}


@few
@given(st.sampled_from(sorted(METHODS)), st.sampled_from(sorted(NORMS)), st.integers(0, 99))
def test_images_do_not_influence_each_other(method, norm, seed):
    """The result of two images is that of each alone, or the network is refused."""
    model, x = Net(NORMS[norm](), seed=seed), images(seed)
    if norm == "function":
        with suppress(UnsupportedNetwork):  # what passes single images need not refuse
            METHODS[method](model, x)
            assert method in ("occlusion", "occlude"), "images were not told apart"
        return
    batched = METHODS[method](model, x)
    separate = torch.cat([METHODS[method](model, image) for image in x.split(1)])
    torch.testing.assert_close(
        batched, separate, rtol=1e-3, atol=1e-4 * float(separate.abs().max())
    )


@few
@given(st.sampled_from(sorted(WITH_BATCH)), st.sampled_from(["module", "none"]), st.integers(1, 3))
def test_batch_changes_no_result(method, norm, batch):
    model, x = Net(NORMS[norm]()), images(3, n=3)
    result, other = (WITH_BATCH[method](model, x, batch=n) for n in (batch, 64))
    torch.testing.assert_close(result, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_saliency_of_two_images_with_batch_statistics():
    """The issue's input: the gradients differed from those of single images by 60 to 90 %."""
    model, x = Net(nn.BatchNorm2d(6, track_running_stats=False)), images()
    x.requires_grad_()
    for n in range(2):
        (g,) = torch.autograd.grad(model(x[n : n + 1]).max(), x)
        saliency = zfnet.explain(model, x, "saliency").map[n, 0]
        torch.testing.assert_close(saliency, g[n].abs().amax(0))


def test_a_single_value_cannot_be_normalized():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(UnsupportedNetwork, match="a single image does not allow"):
        logits_of(model.eval(), torch.rand(2, 3, 1, 1))


class AlwaysTraining(nn.BatchNorm2d):
    """Ignores evaluation mode, as layers that are kept in training mode do."""

    def train(self, mode=True):
        return super().train(True)


@few
@given(st.sampled_from(sorted(METHODS)))
def test_modules_that_keep_training_are_evaluated(method):
    """Their statistics do not change, and their mode is restored."""
    norm = AlwaysTraining(6)
    model = Net(norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    METHODS[method](model, images())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert norm.training
    with evaluating(model):
        assert not norm.training


HEADS = {  # of logits z: the function, and the probabilities of its output
    "softmax module": (nn.Softmax(1), lambda z: z.softmax(1)),
    "softmax": (Function(lambda z: F.softmax(z, 1)), lambda z: z.softmax(1)),
    "softmax method": (Function(lambda z: z.softmax(-1)), lambda z: z.softmax(1)),
    "log softmax": (nn.LogSoftmax(1), lambda z: z.softmax(1)),
    "sigmoid": (Function(torch.sigmoid), lambda z: z.sigmoid()),
    "sigmoid module": (nn.Sigmoid(), lambda z: z.sigmoid()),
    "reshaped": (Function(lambda z: z.softmax(1).view(-1, z.shape[1])), lambda z: z.softmax(1)),
    "logits": (nn.Identity(), lambda z: z.sigmoid() if z.shape[1] == 1 else z.softmax(1)),
}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(HEADS)), st.integers(1, 4), st.integers(0, 99))
def test_outputs_become_probabilities_by_one_rule(head, classes, seed):
    """Softmax of logits, sigmoid of one logit, and outputs of a softmax or sigmoid as they are."""
    function, expected = HEADS[head]
    if classes == 1 and "log" in head:
        return  # one log probability is always 0
    model, x = Net(head=function, classes=classes, seed=seed), images(seed)
    with torch.no_grad():
        logits = model.fc(
            model.relu2(model.conv2(F.max_pool2d(model.relu1(model.conv1(x)), 2))).mean((2, 3))
        )
        torch.testing.assert_close(probability_function(model)(model(x)), expected(logits))
    torch.testing.assert_close(
        zfnet.occlude(model, x, 0, size=4, stride=4).baseline.probability, expected(logits)[:, 0]
    )
    torch.testing.assert_close(confidence(model, x, 0).probability, expected(logits)[:, 0])


def test_probabilities_of_a_network_that_cannot_be_traced():
    """Rows from 0 to 1 that sum to 1 are probabilities."""
    model = Net(head=Function(lambda z: z.softmax(1) if float(z.sum()) < 1e9 else z))
    with torch.no_grad():
        outputs = model(images())
        assert torch.equal(probability_function(model)(outputs), outputs)
    with pytest.raises(UnsupportedNetwork, match="returns probabilities"):
        fgsm(model, images(), epsilon=1.0)


def test_the_probability_of_one_logit_changes_under_the_occluder():
    """The issue's input: it was 1 at every position."""
    probability = zfnet.occlude(Net(classes=1), images()[:1], size=4, stride=4).probability
    assert 0 < probability.min() < probability.max() < 1


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "deepfool", "rubbish"])
@pytest.mark.parametrize(
    ("head", "classes"), [("logits", 1), ("sigmoid", 1), ("softmax", 4), ("sigmoid", 4)]
)
def test_attacks_need_logits_of_several_classes(attack, head, classes):
    model = Net(head=HEADS[head][0], classes=classes)
    kind = "one logit" if classes == 1 else "probabilities"
    with pytest.raises(UnsupportedNetwork, match=kind):
        rubbish(model, images(), 0) if attack == "rubbish" else WITH_BATCH[attack](model, images())


@few
@given(st.integers(0, 99), st.sampled_from([1.0, 30.0, 1e4]))
def test_a_saturated_softmax_is_attacked_all_the_same(seed, scale):
    """Between two classes, scaled logits have the same decision boundary, so FGSM takes the same step."""
    model, x = Net(classes=2, seed=seed), images(seed)
    changed = fgsm(model, x, epsilon=4.0).pixels
    model.head = Function(lambda z: z * scale)
    same = (fgsm(model, x, epsilon=4.0).pixels == changed).double().mean()
    assert same > 0.999  # signs of gradients near 0 may differ by rounding


@few
@given(
    st.floats(-1e4, 1e4, width=32),
    st.integers(2, 20),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_a_constant_map_has_a_state(value, side, dtype):
    """A map that gives all pixels the same weight, up to rounding, explains nothing."""
    maps = torch.full((1, 1, side, side), value, dtype=dtype)
    attribution = Attribution(maps, None, "any", torch.zeros(1).long())
    assert attribution.state == ("all zero" if not maps.any() else "constant",)
    maps[0, 0, 0, 0] = 2 * value + 1
    if torch.isfinite(maps).all() and maps[0, 0, 0, 0] != maps[0, 0, 0, 1]:
        assert attribution.state == ("ok",)


def test_a_map_of_one_position_is_constant():
    model = nn.Sequential(nn.Conv2d(3, 4, SIDE), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)).eval()
    nn.init.constant_(model[0].bias, 1.0)
    nn.init.constant_(model[3].weight, 1.0)
    assert grad_cam(model, images()[:1], layer="conv1").state == ("constant",)


@few
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 99))
def test_an_occluder_leaves_a_part_of_the_image(height, width, size):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    x = torch.rand(1, 3, height, width)
    if size >= max(height, width):
        with pytest.raises(ValueError, match="covers the whole image"):
            zfnet.occlude(model, x, 0, size=size, stride=size)
    else:
        assert zfnet.occlude(model, x, 0, size=size, stride=size).logit.numel() > 1


def test_the_default_occluder_fits_a_digit():
    assert zfnet.explain(zfnet.mnist(), torch.rand(1, 3, 28, 28), "occlusion", 8).state == ("ok",)


@few
@given(st.integers(0, 999))
def test_grad_cam_plus_plus_equals_the_paper(seed):
    """alpha = g^2 / (2 g^2 + g^3 S), in float64."""
    torch.manual_seed(seed)
    model = (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(500, 3))
        .double()
        .eval()
    )
    x = images(seed)[:1].double()
    maps = model[1](model[0](x)).detach().requires_grad_()
    (g,) = torch.autograd.grad(model[3](maps.flatten(1))[0, 1], maps)
    alpha = g**2 / (2 * g**2 + g**3 * maps.sum((2, 3), keepdim=True))
    coarse = ((alpha * g.relu()).sum((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    torch.testing.assert_close(grad_cam_plus_plus(model, x, 1).coarse, coarse.detach())


@few
@given(
    st.sampled_from(
        ["grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "cam", "saliency", "occlusion"]
    ),
    st.sampled_from([torch.float16, torch.bfloat16]),
    st.integers(0, 99),
)
def test_half_precision_keeps_the_maps(method, dtype, seed):
    """Powers and products of small gradients vanish in float16; at 448 pixels Grad-CAM++ was half."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()
    side = 448 if "cam" in method else 64
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    exact = zfnet.explain(model, x, method, 1).map
    rounded = zfnet.explain(model.to(dtype), x.to(dtype), method, 1).map
    assert rounded.dtype == torch.float32
    # An occlusion map is a difference of logits, which are rounded.
    share = {torch.float16: 0.03, torch.bfloat16: 0.1}[dtype] * (5 if method == "occlusion" else 1)
    assert (rounded - exact).abs().mean() <= share * exact.abs().mean() + 1e-9


class Chain(nn.Module):
    """A chain with functional ReLUs, which no hook can observe."""

    def __init__(self):
        super().__init__()
        self.network = Net()

    def forward(self, x):
        net = self.network
        x = F.relu(net.conv2(F.max_pool2d(F.relu(net.conv1(x)), 2)))
        return net.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(("layer", "module"), [("conv1", "relu1"), ("conv2", "relu2")])
def test_layers_completed_by_a_functional_relu_have_maps(layer, module):
    assert layer in [
        entry.name for entry in zfnet.list_layers(Chain(), SIDE) if "grad_cam" in entry.uses
    ]
    chain = Chain()
    expected = grad_cam(nn.Sequential(chain.network), images(), layer=f"0.{module}").coarse
    torch.testing.assert_close(grad_cam(chain, images(), layer=layer).coarse, expected)


class NoGradient(Net):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "smoothgrad", "fgsm", "ascend"])
def test_a_network_without_gradient_is_refused(method):
    with pytest.raises(UnsupportedNetwork, match="no gradient reaches the input"):
        METHODS[method](NoGradient(), images())


def test_scripted_networks_are_refused():
    """They cannot be traced, and their modules take no hooks."""
    scripted = torch.jit.script(Net())
    inner = nn.Sequential(
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())),
        nn.Flatten(),
        nn.Linear(400, 3),
    )
    for model, layer in ((scripted, "conv2"), (inner, "0"), (inner, "0.0")):
        for method in ("grad_cam", "grad_cam_plus_plus", "guided_grad_cam"):
            with pytest.raises(UnsupportedNetwork, match="is a TorchScript module"):
                zfnet.explain(model, images(), method, layer=layer)
        with pytest.raises(UnsupportedNetwork, match="is a TorchScript module"):
            ascend(model, images(), 0, layer=layer, steps=1)
        with pytest.raises(UnsupportedNetwork, match="is a TorchScript module"):
            responses(model, list(images()), (layer,))


@few
@given(st.sampled_from(sorted(METHODS)), st.booleans())
def test_torchs_default_device_has_no_effect(method, chain):
    """Everything is on the device of the images; on the meta device nothing could be computed."""
    model = nn.Sequential(*Net().children()) if chain else Net()
    model = zfnet.mnist() if chain else Net()
    x = torch.rand(2, 3, 28, 28) if chain else images()
    if chain and method not in ("fgsm", "deconvnet", "occlusion", "ascend", "dream", "confidence"):
        return
    expected = METHODS[method](model, x)
    with torch.device("meta"):
        result = METHODS[method](model, x)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("function", [zfnet.trace, lambda m, x: zfnet.explain(m, x, "saliency")])
def test_meta_images_are_refused(function):
    with pytest.raises(ValueError, match="meta device"):
        function(Net().to("meta"), images().to("meta"))


def test_inversion_ignores_the_default_device():
    model, x = Net(), images()
    code = feature_extractor(model, x, ("conv2",))(x)["conv2"].detach()
    with torch.device("meta"):
        error = invert(model, code, x.flip(0), layer="conv2", steps=2).error
    assert error.isfinite().all()
