"""Shape descriptors of drawings with known slant, stroke thickness and hole area."""

import math

import numpy as np
import pytest
import torch

from zfnet.analysis.shapes import curved_top, hole_area, slant, thickness, verticality

# Side in pixels, and the supersampling factor.
SIDE, OVERSAMPLING = 28, 16


def draw(inside, lean=0.0):
    """Draw the points where inside(x, y), sheared to the right: (1, 28, 28); y points down."""
    axis = (torch.arange(SIDE * OVERSAMPLING) + 0.5) / OVERSAMPLING - SIDE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    fine = inside(x + y * math.tan(math.radians(lean)), y).float()
    return fine.view(1, SIDE, OVERSAMPLING, SIDE, OVERSAMPLING).mean((2, 4))


def ring(outer, inner, at=0.0):
    return lambda x, y: (torch.hypot(x, y - at) < outer) & (torch.hypot(x, y - at) >= inner)


def eight(x, y):
    return ring(5.5, 3, -4.5)(x, y) | ring(6, 3, 4.5)(x, y)


def bar(length, width, turned=0.0):
    c, s = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    return lambda x, y: ((x * c + y * s).abs() < width / 2) & ((y * c - x * s).abs() < length / 2)


@pytest.mark.parametrize("lean", [-35, -10, 0, 12.5, 30])
@pytest.mark.parametrize("shape", [ring(8, 5), eight, bar(18, 3)], ids=["ring", "eight", "bar"])
def test_slant_equals_the_shear(shape, lean):
    assert float(slant(draw(shape, lean))) == pytest.approx(lean, abs=0.5)


def test_sign_of_the_slant():
    image = torch.zeros(1, 9, 9)
    for row in range(9):
        image[0, row, 8 - row] = 1  # "/"
    assert float(slant(image)) == pytest.approx(45)
    assert float(slant(image.flip(2))) == pytest.approx(-45)
    # The slant does not depend on position or brightness.
    assert float(slant(torch.nn.functional.pad(image * 0.3, (5, 2, 1, 7)))) == pytest.approx(
        45, abs=1e-3
    )


@pytest.mark.parametrize("width", [2, 3, 4.5])
@pytest.mark.parametrize("turned", [0, 20, 45, 90])
def test_thickness_of_a_bar(width, turned):
    # The perimeter includes the ends: 2 A / P = tL / (t + L).
    values = float(thickness(draw(bar(20, width, turned))))
    assert values == pytest.approx(width * 20 / (width + 20), rel=0.1)


@pytest.mark.parametrize("width", [1.5, 2.5, 4])
def test_thickness_of_a_ring_does_not_depend_on_its_position(width):
    image = draw(ring(7 + width / 2, 7 - width / 2))
    assert float(thickness(image)) == pytest.approx(width, rel=0.1)
    cut = image[:, 4:24, 4:24]
    # A ring that touches the border; the border counts as an edge.
    cut = cut[:, int(cut[0].any(1).nonzero()[0]) :, int(cut[0].any(0).nonzero()[0]) :]
    assert float(thickness(cut)) == pytest.approx(float(thickness(image)), rel=1e-5)


@pytest.mark.parametrize("inner", [2, 3.5, 6])
def test_hole_area_of_a_ring(inner):
    # Antialiasing shifts edges by up to a third of a pixel.
    assert float(hole_area(draw(ring(inner + 3, inner)))) == pytest.approx(
        math.pi * inner**2, abs=2 * inner
    )


def test_holes_add_up_and_a_gap_opens_them():
    both, one = draw(eight), draw(ring(6, 3, 4.5))
    assert float(hole_area(both)) == pytest.approx(2 * float(hole_area(one)), abs=4)
    assert float(hole_area(draw(bar(20, 4)))) == 0
    open_ring = draw(lambda x, y: ring(9, 6)(x, y) & ~((x.abs() < 1) & (y < 0)))
    assert float(hole_area(open_ring)) == 0
    spiral = torch.zeros(1, 7, 7)  # an opening around two corners, and a closed diagonal
    spiral[0, 1, 1:6] = spiral[0, 1:6, 1] = spiral[0, 5, 1:6] = spiral[0, 3:6, 5] = 1
    assert float(hole_area(spiral)) == 0
    diamond = torch.zeros(1, 5, 5)
    diamond[0, 1, 2] = diamond[0, 2, 1] = diamond[0, 2, 3] = diamond[0, 3, 2] = 1
    assert float(hole_area(diamond)) == 1


def test_verticality():
    assert float(verticality(draw(bar(20, 3)))) > 0.85
    assert float(verticality(draw(bar(20, 3, 90)))) < 0.15
    assert float(verticality(draw(ring(8, 5)))) == pytest.approx(0.5, abs=0.01)
    image = draw(bar(20, 3, 30))
    assert float(verticality(image)) == pytest.approx(
        1 - float(verticality(image.transpose(1, 2))), abs=1e-6
    )


def test_curved_tops():
    arch = draw(lambda x, y: ring(9, 6.5)(x, y) & (y < 0) | (bar(18, 2)(x - 7.75, y) & (y >= 0)))
    # The shape of a 7.
    flat = draw(lambda x, y: (((y + 8).abs() < 1.25) & (x.abs() < 7)) | bar(18, 2.5)(x - 5, y))
    cup = draw(lambda x, y: ring(9, 6.5)(x, y) & (y > 0))
    slope = draw(bar(20, 3, 60))
    # The least-squares parabola of a half circle.
    assert float(curved_top(draw(ring(9, 6)))) == pytest.approx(15 * math.pi / 64, abs=0.1)
    assert float(curved_top(arch)) > 0.6
    assert float(curved_top(flat)) == pytest.approx(0, abs=0.05)
    assert abs(float(curved_top(slope))) < 0.35
    assert float(curved_top(draw(bar(20, 3)))) == pytest.approx(0, abs=0.05)
    assert float(curved_top(cup)) <= 0.1
    assert math.isnan(float(curved_top(draw(bar(20, 2)))))  # two columns of ink


def test_batches_equal_single_images():
    images = torch.cat(
        [draw(eight, 10), draw(bar(18, 3)), torch.zeros(1, SIDE, SIDE), draw(ring(8, 5))]
    )
    for measure in (slant, thickness, hole_area, verticality, curved_top):
        values = measure(images)
        assert values.shape == (4,)
        np.testing.assert_allclose(
            values, torch.cat([measure(image[None]) for image in images]), rtol=1e-5
        )
        assert values[2].isnan()  # no ink
        assert not values[[0, 1, 3]].isnan().any()


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(28, 28),
        torch.zeros(1, 3, 28, 28),
        torch.full((1, 9, 9), 255.0),
        torch.zeros(1, 9, 9).byte(),
    ],
)
def test_wrong_images_are_rejected(images):
    with pytest.raises(ValueError, match=r"expected gray images \(N, H, W\)"):
        slant(images)
