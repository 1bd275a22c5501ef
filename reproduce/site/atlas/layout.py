"""The sizes and quality of an atlas's pictures: the full and the compact layout."""

from __future__ import annotations

from dataclasses import dataclass

TOP = 9  # tiles per feature: its strongest images


@dataclass(frozen=True)
class Layout:
    """The sizes of an atlas's pictures.

    Attributes:
        max_side: Largest side of a tile, in pixels.
        min_side: Smaller patches are enlarged to this side, since WebP blurs single pixels.
        quality: Of patches and images as WebP.
        fine_quality: Of projections, which are faint and take few bytes.
        thumbnail: Side of an image on a class's page, in pixels.
        images: Images on a class's page.
        demos: Demonstration images.
    """

    max_side: int = 90
    min_side: int = 48
    quality: int = 60
    fine_quality: int = 60
    thumbnail: int = 96
    images: int = TOP
    demos: int = 6


FULL = Layout()
# 1,376 features and 1000 classes take less than 12 MB.
COMPACT = Layout(48, 1, quality=40, fine_quality=65, thumbnail=48, images=5, demos=3)


def tile_side(field: int, layout: Layout = FULL) -> int:
    """The side of a tile for a receptive field: its own size, within the limits of the layout."""
    enlarged = field if field >= layout.min_side else field * -(-layout.min_side // field)
    return min(layout.max_side, enlarged)
