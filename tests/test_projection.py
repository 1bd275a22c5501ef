"""Projections against Captum and against equivalent projections."""

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import zfnet
from tests.conftest import narrow_vgg11, random_he
from zfnet.forward import trace
from zfnet.graph import UnknownLayer, UnsupportedNetwork
from zfnet.projection import project
from zfnet.receptive_field import cut


def vgg11():
    model = narrow_vgg11()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # as Captum's hooks require
    return model


@pytest.mark.reference
@pytest.mark.parametrize(
    "build",
    [
        lambda: random_he(zfnet.zfnet(10, norm="none", fc_units=32)), lambda: random_he(zfnet.alexnet(10, norm="none", fc_units=32)),
        lambda: random_he(zfnet.alexnet(10, norm="none", fc_units=32, groups=2)), vgg11,
    ],
    ids=["zfnet", "alexnet", "alexnet-groups", "vgg11"],
)  # fmt: skip
def test_projection_without_normalization_equals_captum(build, photographs):
    model = build()
    x = photographs[:1]
    t = trace(model, x)
    names = [step.layer for step in t.steps if step.layer and isinstance(step.module, nn.ReLU)]
    modules = {step.layer: step.module for step in t.steps if step.layer}
    for layer in [n for n in names if n.startswith("conv")][1::2] + names[-1:]:
        maps = t[layer] if t[layer].ndim == 4 else t[layer][:, :, None, None]
        channel = int(maps[0].amax((1, 2)).argmax())
        p = project(model, x, layer, channel)
        r, c = p.position[0].tolist()
        selector = (channel, r, c) if t[layer].ndim == 4 else channel
        oracle = captum.attr.NeuronDeconvolution(model, modules[layer]).attribute(
            x.clone().requires_grad_(), selector
        )
        oracle = oracle.detach() * p.activation
        assert p.activation > 0
        assert (p.pixels - oracle).abs().max() <= 1e-5 * oracle.abs().max(), layer


def test_projection_skips_lrn(photographs):
    model = random_he(zfnet.zfnet(10, fc_units=32))
    p = project(model, photographs[:1], "conv5", 3)
    oracle = captum.attr.NeuronDeconvolution(model, model.relu5).attribute(
        photographs[:1].clone().requires_grad_(), (3, *p.position[0].tolist())
    )
    difference = (p.pixels - oracle.detach() * p.activation).abs().max() / p.pixels.abs().max()
    # Backpropagation scales by k^-0.75 at each normalization layer; the deconvnet skips it.
    assert difference > 0.1


@pytest.mark.reference
def test_positions_channels_and_boxes(plain_zfnet, photographs):
    t = trace(plain_zfnet, photographs, until="conv4")
    p = project(plain_zfnet, photographs, "conv4", torch.tensor([5, 6, 7]))
    for n, channel in enumerate((5, 6, 7)):
        row, column = p.position[n].tolist()
        assert (
            t["conv4"][n, channel, row, column] == t["conv4"][n, channel].max() == p.activation[n]
        )
        single = project(plain_zfnet, photographs[n : n + 1], "conv4", channel, (row, column))
        torch.testing.assert_close(single.pixels[0], p.pixels[n], rtol=1e-4, atol=1e-6)
    assert p.pixels.shape == (3, 3, 224, 224)
    assert p.channel.tolist() == [5, 6, 7]
    outside = p.pixels.clone()
    for n, (top, left, bottom, right) in enumerate(p.box.tolist()):
        outside[n, :, top:bottom, left:right] = 0
    assert outside.abs().max() == 0
    assert p.pixels.min() < 0 < p.pixels.max()  # pixels are signed: the last step is not rectified


@pytest.mark.reference
def test_many_channels_of_one_image_in_any_batch(plain_zfnet, photographs):
    channels = torch.arange(20)
    one_batch = project(plain_zfnet, photographs[:1], "conv3", channels)
    small_batches = project(plain_zfnet, photographs[:1], "conv3", channels, batch=7)
    assert one_batch.pixels.shape == (20, 3, 224, 224)
    torch.testing.assert_close(one_batch.pixels, small_batches.pixels, rtol=1e-5, atol=1e-7)


@pytest.mark.reference
def test_ties_use_the_first_position_and_zero_projects_to_zero():
    model = zfnet.zfnet(3, norm="none", fc_units=8)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    p = project(model, torch.randn(2, 3, 224, 224), "conv5", 0)
    assert p.position.tolist() == [[0, 0], [0, 0]]
    assert p.activation.tolist() == [0, 0]
    assert p.pixels.abs().max() == 0


@pytest.mark.parametrize(
    ("layer", "position", "size"),
    [("conv1", (0, 0), 7), ("conv3", (12, 0), 75), ("conv5", (6, 6), 139)],
)
def test_crop_is_the_receptive_field_with_zeros_outside(
    plain_zfnet, photographs, layer, position, size
):
    full = project(plain_zfnet, photographs[:1], layer, 1, position)
    patch = project(plain_zfnet, photographs[:1], layer, 1, position, crop=True)
    assert patch.pixels.shape == (1, 3, size, size)
    assert patch.pixels.is_contiguous()
    assert torch.equal(patch.pixels, cut(full.pixels, full.corner, size))
    assert torch.equal(patch.box, full.box)
    torch.testing.assert_close(patch.pixels.abs().sum(), full.pixels.abs().sum())
    top, left, bottom, right = patch.box[0].tolist()
    dy, dx = (patch.box[0, :2] - patch.corner[0]).tolist()
    inner = patch.pixels[0, :, dy : dy + bottom - top, dx : dx + right - left]
    assert torch.equal(inner, full.pixels[0, :, top:bottom, left:right])


@pytest.mark.parametrize("collision", ["sum", "overwrite"])
def test_projections_are_identical_over_20_runs(photographs, collision, two_threads):
    model = random_he(zfnet.zfnet(10, norm="none", channels=(16, 24, 24, 24, 16), fc_units=16))
    first = project(model, photographs, "conv5", 3, collision=collision).pixels
    assert all(
        torch.equal(first, project(model, photographs, "conv5", 3, collision=collision).pixels)
        for _ in range(19)
    )


def test_overwriting_collisions_loses_signal(plain_zfnet, photographs):
    strongest = trace(plain_zfnet, photographs)["conv5"].amax((2, 3)).argmax(1)
    summed, overwritten = (
        project(plain_zfnet, photographs, "conv5", strongest, collision=c).pixels.flatten(1)
        for c in ("sum", "overwrite")
    )
    assert F.cosine_similarity(summed, overwritten).max() < 0.99


def test_batchnorm_equals_folded_batchnorm(photographs):
    torch.manual_seed(0)
    model = zfnet.zfnet(5, norm="batch", fc_units=16)
    for _ in range(2):
        model(photographs)
    with torch.no_grad():
        model.bn1.weight.uniform_(-1, 2)
    model.eval()
    projection, folded = (
        project(model, photographs, "conv4", 2),
        project(zfnet.fold(model), photographs, "conv4", 2),
    )
    torch.testing.assert_close(
        projection.pixels, folded.pixels, rtol=1e-3, atol=1e-5 * float(folded.pixels.abs().max())
    )


def test_dense_layers_and_paper_input(photographs):
    model = random_he(zfnet.zfnet(5, norm="none", fc_units=16, input="paper"))
    p = project(model, photographs[:1], "fc8", 2)
    assert p.pixels.shape == (1, 3, 224, 224)
    assert p.box.tolist() == [[0, 0, 224, 224]]
    # Fold the input layer into the first convolution of a second network.
    with torch.no_grad():
        standard = random_he(zfnet.zfnet(5, norm="none", fc_units=16))
        standard.load_state_dict(
            {k: v for k, v in model.state_dict().items() if not k.startswith("input.")}
        )
        shift = torch.einsum(
            "oihw,i->o", standard.conv1.weight, (model.input.center - model.input.mean).mean((1, 2))
        )
        standard.conv1.bias += shift
        standard.conv1.weight *= model.input.scale
    t = trace(model, photographs[:1])
    torch.testing.assert_close(
        trace(standard, photographs[:1])["conv1"][..., 1:-1, 1:-1],
        t["conv1"][..., 1:-1, 1:-1],
        rtol=1e-3,
        atol=1e-2,
    )


@pytest.mark.reference
def test_errors_list_the_valid_values(plain_zfnet, photographs):
    with pytest.raises(UnknownLayer, match="no layer 'conv6'; the network has conv1, conv2"):
        project(plain_zfnet, photographs, "conv6", 0)
    with pytest.raises(UnknownLayer, match="'pool1' has no features of its own"):
        project(plain_zfnet, photographs, "pool1", 0)
    with pytest.raises(UnknownLayer, match="no layer None"):
        project(plain_zfnet, photographs, None, 0)
    with pytest.raises(ValueError, match="channel must be whole numbers, got None"):
        project(plain_zfnet, photographs, "conv5", None)
    with pytest.raises(IndexError, match="conv5 has channels 0 to 255, got 256"):
        project(plain_zfnet, photographs, "conv5", 256)
    with pytest.raises(IndexError, match=r"positions \(0, 0\) to \(12, 12\)"):
        project(plain_zfnet, photographs, "conv5", 0, (13, 0))
    with pytest.raises(ValueError, match="3 images and 2 channels"):
        project(plain_zfnet, photographs, "conv5", torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="collision"):
        project(plain_zfnet, photographs, "conv5", 0, collision="mean")
    with pytest.raises(UnsupportedNetwork, match="is a SiLU"):
        project(
            torchvision.models.efficientnet_b0(weights=None).eval(), photographs, "features.1", 0
        )


def test_projections_of_scenes_are_on_the_object(scenes_net, scenes_val):
    """The strongest conv5 unit of a drawn scene projects onto the object, not the background."""
    indices = list(range(40))
    x = scenes_val.batch(indices)
    strongest = trace(scenes_net, x)["conv5"].amax((2, 3)).argmax(1)
    energy = project(scenes_net, x, "conv5", strongest).pixels.square().sum(1)
    mask = torch.from_numpy(scenes_val.masks[indices])[:, 8:-8, 8:-8]
    # Include edges just outside the object.
    near_object = F.max_pool2d(mask[:, None].float(), 9, 1, 4)[:, 0] > 0
    inside = (energy * near_object).sum((1, 2)) / energy.sum((1, 2))
    assert inside.mean() > 2 * near_object.float().mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_projection_on_a_gpu_equals_the_cpu(plain_zfnet, photographs, monkeypatch):
    import copy

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as the commands do
    gpu_model = copy.deepcopy(plain_zfnet).cuda()
    a = project(plain_zfnet, photographs, "conv5", 3).pixels
    b = [project(gpu_model, photographs.cuda(), "conv5", 3).pixels for _ in range(5)]
    assert all(torch.equal(b[0], other) for other in b)
    torch.testing.assert_close(b[0].cpu(), a, rtol=1e-2, atol=1e-2 * float(a.abs().max()))


@pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (3, 2), (4, 2)])
def test_padding_names_equal_padding_sizes(kernel, dilation):
    def network(first, second):
        torch.manual_seed(0)
        filters = [
            nn.Conv2d(3, 8, 3, padding=first),
            nn.Conv2d(8, 8, kernel, padding=second, dilation=dilation),
        ]
        return nn.Sequential(
            filters[0],
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            filters[1],
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(2),
        )

    x, reach = torch.randn(2, 3, 24, 24), dilation * (kernel - 1)
    named, numeric = network("valid", "same"), network(0, reach // 2)
    named(x), numeric(x)
    numeric.load_state_dict(named.state_dict())
    for crop in (True, False):
        projection, oracle = (
            project(m, x[:1], "conv2", torch.arange(8), (1, 9), crop=crop) for m in (named, numeric)
        )
        assert oracle.activation.max() > 0
        assert torch.equal(projection.pixels, oracle.pixels)
    a, b = (zfnet.occlude(m, x, size=6, stride=5).logit for m in (named, numeric))
    assert torch.equal(a, b)


def test_asymmetric_padding_is_rejected():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, padding="same"), nn.ReLU())
    with pytest.raises(
        UnsupportedNetwork, match=r"kernel_size=\(4, 4\).*: pads one side more than the other"
    ):
        project(model, torch.randn(1, 3, 16, 16), "conv1", 2)


@pytest.mark.parametrize("position", [1, (1, 1, 1)])
def test_position_must_be_two_integers(plain_zfnet, photographs, position):
    with pytest.raises(ValueError, match="position must be"):
        project(plain_zfnet, photographs, "conv5", 0, position)
    with pytest.raises(ValueError, match="position must be whole numbers"):
        project(plain_zfnet, photographs, "conv5", 0, (0.5, 1.0))
    with pytest.raises(ValueError, match="channel must be whole numbers"):
        project(plain_zfnet, photographs, "conv5", torch.tensor([1.9, 2.0, 3.0]))
