"""The networks against Fig. 3, Table 3 and PyTorch's LRN."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from zfnet.model.options import ModelOptions
from zfnet.normalization import LocalResponseNorm, PaperInput

FIG3 = {  # (maps, height, width) in Fig. 3
    "conv1": (96, 110, 110), "pool1": (96, 55, 55), "conv2": (256, 26, 26), "pool2": (256, 13, 13), "conv3": (384, 13, 13),
    "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
}  # fmt: skip


def test_zfnet_matches_fig_3():
    rows = {row.name: row for row in zfnet.describe(zfnet.zfnet())}
    assert {name: rows[name].shape for name in FIG3} == FIG3
    assert round(sum(r.parameters for r in rows.values()) / 1e6, 1) == 62.4
    macs = {
        name: round(rows[name].macs / 1e6) for name in ("conv1", "conv2", "conv3", "conv4", "conv5")
    }
    assert macs == {"conv1": 171, "conv2": 415, "conv3": 150, "conv4": 224, "conv5": 150}
    assert round(sum(r.macs for r in rows.values()) / 1e6) == 1168


def test_alexnet_with_and_without_groups():
    dense, grouped = zfnet.alexnet(), zfnet.alexnet(groups=2)
    rows = {row.name: row.shape for row in zfnet.describe(dense)}
    assert [rows[n][-1] for n in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")] == [
        55,
        27,
        27,
        13,
        13,
        6,
    ]
    assert [getattr(grouped, f"conv{n}").groups for n in range(1, 6)] == [1, 2, 1, 2, 2]
    parameters = sum(p.numel() for p in grouped.parameters())
    assert parameters == 60_965_224  # Krizhevsky et al. 2012: "60 million parameters"


@pytest.mark.parametrize(
    ("options", "present", "fc7"),
    [
        ({"drop_layers": (3, 4)}, "1 2 5 6 7 8", 4096), ({"drop_layers": (7,)}, "1 2 3 4 5 6 8", None), ({"drop_layers": (6, 7)}, "1 2 3 4 5 8", None),
        ({"drop_layers": (3, 4, 6, 7)}, "1 2 5 8", None), ({"fc_units": 2048}, "1 2 3 4 5 6 7 8", 2048), ({"fc_units": 8192}, "1 2 3 4 5 6 7 8", 8192),
        ({"channels": (512, 1024, 512)}, "1 2 3 4 5 6 7 8", 4096), ({"channels": (512, 1024, 512), "fc_units": 8192}, "1 2 3 4 5 6 7 8", 8192),
    ],
)  # fmt: skip
@pytest.mark.parametrize("build", [zfnet.zfnet, zfnet.alexnet])
def test_rows_of_table_3_have_the_requested_layers(build, options, present, fc7):
    with torch.device("meta"):
        model = build(**options)
    numbers = [
        name[-1] for name, m in model.named_children() if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    assert " ".join(numbers) == present
    if fc7:
        assert model.fc7.out_features == fc7
    if "channels" in options:
        assert (
            model.conv3.out_channels,
            model.conv4.out_channels,
            model.conv5.out_channels,
        ) == options["channels"]
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize(
    "option",
    [
        {"norm": "layer"},
        {"channels": (1, 2)},
        {"drop_layers": (1,)},
        {"input": "caffe"},
        {"init": "zero"},
        {"size": 8},
    ],
)
def test_wrong_option_is_named(option):
    with pytest.raises(
        ValueError, match=next(iter(option)) if "size" not in option else "8 pixels"
    ):
        zfnet.zfnet(10, **option)


def test_unknown_option_lists_the_available_ones():
    available = ", ".join(field.name for field in fields(ModelOptions))
    with pytest.raises(TypeError, match=f"alexnet: unknown option depth; available: {available}$"):
        zfnet.alexnet(10, depth=3)


@pytest.mark.parametrize(
    ("options", "inner"), [({}, 0.01), ({"init": "he"}, (2 / 2400) ** 0.5), ({"norm": "batch"}, (2 / 2400) ** 0.5),
                           ({"norm": "batch", "init": "paper"}, 0.01)],
)  # fmt: skip
def test_initial_weights_have_the_requested_standard_deviation(options, inner):
    model = zfnet.zfnet(50, fc_units=64, size=64, **options)
    # The fan-in is 2,400: 5 x 5 pixels of 96 maps.
    assert float(model.conv2.weight.detach().std()) == pytest.approx(inner, rel=0.01)
    assert float(model.fc8.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not any(
        m.bias.any() for m in model if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(0, 99),
)
def test_lrn_equals_pytorch_forward_and_backward(n, channels, side, size, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(n, channels, side, side, generator=generator)).requires_grad_()
    upstream = torch.randn(n, channels, side, side, generator=generator)
    output, expected = LocalResponseNorm(size)(x), nn.LocalResponseNorm(size, 5e-4, 0.75, 2.0)(x)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(
        *(torch.autograd.grad(y, x, upstream) for y in (output, expected)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_lrn_gradient_equals_finite_differences():
    x = torch.randn(1, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(5, alpha=0.5), (x,))


def test_paper_input_has_the_range_of_the_paper():
    x = (
        torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
        - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    ) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    y = PaperInput(mean=torch.full((3, 2, 2), 127.5))(x)
    torch.testing.assert_close(y[0], torch.full((3, 2, 2), -127.5), rtol=0, atol=1e-3)
    torch.testing.assert_close(y[1], torch.full((3, 2, 2), 127.5), rtol=0, atol=1e-3)


def test_folding_batchnorm_preserves_the_outputs():
    torch.manual_seed(0)
    model = zfnet.zfnet(7, norm="batch", fc_units=16, size=96)
    for _ in range(3):  # move the running statistics and gains away from 0 and 1
        model(torch.randn(4, 3, 96, 96))
    for module in model:
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    folded = zfnet.fold(model)
    x = torch.randn(3, 3, 96, 96)
    assert not any("bn" in name for name, _ in folded.named_children())
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-4)


def test_class_index_accepts_names_numbers_and_wnids():
    model = zfnet.zfnet(4, fc_units=8)
    model.classes, model.wnids = (
        ["Afghan hound", "crane", "crane", "goldfish"],
        ["n02088094", "n02012849", "n03126707", "n01443537"],
    )
    assert (
        model.class_index("afghan HOUND")
        == model.class_index("n02088094")
        == model.class_index(0)
        == 0
    )
    with pytest.raises(ValueError, match="n02012849, n03126707"):
        model.class_index("crane")
    with pytest.raises(ValueError, match="Afghan hound"):
        model.class_index("Afgan hound")
    with pytest.raises(ValueError, match="no class 17"):
        model.class_index(17)
    model.classes[3] = "afghan hound"  # like Cardigan, a dog, and cardigan, a garment
    assert (model.class_index("afghan hound"), model.class_index("Afghan hound")) == (3, 0)


def test_class_index_accepts_any_integer_type():
    model = zfnet.zfnet(20, channels=(4,) * 5, fc_units=8)
    model.classes = model.wnids = sorted(map(str, range(20)))  # "0", "1", "10", ...
    assert [model.class_index(np.int64(i)) for i in (2, 10)] == [2, 10]
    assert type(model.class_index(np.int64(2))) is int
    for name in (True, "²"):
        with pytest.raises(ValueError, match="no class"):
            model.class_index(name)


def test_shared_module_appears_twice():
    net = zfnet.mnist(norm="batch").eval()
    net.relu2 = net.relu1
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(zfnet.fold(net)(x), net(x), rtol=1e-4, atol=1e-5)
    assert "relu2" in [row.name for row in zfnet.describe(net)]
    assert len(net[:7]) == 7
