"""Checks of the dtype and device of images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import zfnet
from zfnet.validation import check_input

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class MixedPrecision(nn.Module):
    """A network whose first parameter has a different dtype."""

    def __init__(self, first, dtype):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1).to(first), requires_grad=False)
        self.conv = nn.Conv2d(3, 4, 3).to(dtype)

    def forward(self, x):
        return self.conv(x * self.scale.to(x.dtype)).relu().mean((2, 3))


@settings(deadline=None)
@given(
    st.sampled_from([*FLOATS, torch.int64, torch.uint8]),
    st.sampled_from(FLOATS),
    st.sampled_from(FLOATS),
)
def test_images_must_have_the_dtype_of_a_layer(first, dtype, image_dtype):
    model, x = MixedPrecision(first, dtype), torch.rand(1, 3, 8, 8).to(image_dtype)
    if image_dtype in (first, dtype):
        check_input(model, x)
    else:
        with pytest.raises(ValueError, match=f"x is {image_dtype} on cpu, the network"):
            check_input(model, x)


@pytest.mark.parametrize("first", [torch.float64, torch.float16, torch.int64])
def test_dtype_of_the_first_parameter_does_not_matter(first):
    torch.manual_seed(0)
    model = MixedPrecision(first, torch.float32)
    unscaled = nn.Sequential(model.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(2, 3, 9, 9)
    for method in ("saliency", "grad_cam", "occlusion"):
        options = {"size": 3, "stride": 3} if method == "occlusion" else {}
        a = zfnet.explain(model, x, method, 1, **options)
        torch.testing.assert_close(a.map, zfnet.explain(unscaled, x, method, 1, **options).map)
    assert [row.shape for row in zfnet.describe(model, 9)][-1] == (4,)


def test_autocast_accepts_float32_images():
    x = torch.rand(1, 3, 8, 8)
    model = MixedPrecision(torch.bfloat16, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert zfnet.explain(model, x, "saliency", 0).map.shape == (1, 1, 8, 8)


def test_network_on_another_device_is_rejected():
    with pytest.raises(ValueError, match="x is torch.float32 on cpu, the network torch.float32 on"):
        check_input(MixedPrecision(torch.float32, torch.float32).to("meta"), torch.rand(1, 3, 8, 8))
