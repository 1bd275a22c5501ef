"""Orientation and brightness of images in all formats, however they are opened."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

import zfnet
from tests.data.test_images import orientations
from zfnet.data.formats import ImageError, read_image, to_rgb
from zfnet.data.frames import load_frames

FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF deflate": {"compression": "tiff_deflate"},
    "MPO": {"quality": 95},
    **({"AVIF": {"quality": 95}} if features.check("avif") else {}),
}
ANIMATED = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
PICTURE = np.zeros((40, 20, 3), np.uint8)  # has no rotation or mirror symmetry
PICTURE[:10, :6], PICTURE[28:, 12:] = 255, (200, 0, 0)


def encode(form, orientation, frames=1):
    """Return an image file with the EXIF orientation tag, its pixels rotated to match."""
    stored = orientations(Image.fromarray(PICTURE))[orientation - 1]
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = FORMATS[form] if frames == 1 else ANIMATED[form] | {"save_all": True}
    if frames > 1:
        options["append_images"] = [ImageOps.invert(stored), stored][: frames - 1]
    stored.save(file, form.split()[0], exif=exif, **options)
    return file.getvalue()


def load_pixels(image):
    image.load()
    return image


def exif_read_first(image):
    image.getexif()
    return image


OPENERS = {
    "as opened": lambda image: image,
    "loaded": load_pixels,
    "exif read first": exif_read_first,
    "copied": lambda image: image.copy(),
    "loaded and copied": lambda image: load_pixels(image).copy(),
    "converted": lambda image: image.convert("RGBA"),
    "resized": lambda image: image.resize(image.size),
    "transposed": ImageOps.exif_transpose,
}


def close_to(image, expected=PICTURE):
    pixels = np.asarray(image).astype(int)
    return pixels.shape == expected.shape and abs(pixels - expected).mean() < 8


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 8), st.sampled_from(sorted(OPENERS)))
def test_exif_orientation_is_applied_once(cache, form, orientation, opener):
    data = encode(form, orientation)
    assert close_to(to_rgb(OPENERS[opener](Image.open(io.BytesIO(data)))))
    (cache / "turned").write_bytes(data)
    assert close_to(read_image(cache / "turned"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", sorted(ANIMATED))
def test_exif_orientation_of_animations_is_applied_once(tmp_path, form, orientation):
    path = tmp_path / "moving"
    path.write_bytes(encode(form, orientation, frames=3))
    expected = [PICTURE, 255 - PICTURE, PICTURE]
    for x, frame in zip(load_frames(path).x, expected, strict=True):
        assert (x - zfnet.preprocess(frame)[0]).abs().max() < 0.1
    with Image.open(path) as file:
        for i in (2, 0, 1):  # seek in any order
            file.seek(i)
            assert close_to(to_rgb(file), expected[i])


def tiff(values, bits, kind=1, photometric=1):
    """Return an uncompressed little-endian TIFF of gray values, in types Pillow cannot write."""
    height, width = values.shape
    if bits == 12:
        a, b = values[:, ::2].astype(int), values[:, 1::2].astype(int)
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 2).astype(np.uint8).tobytes()
    else:
        data = values.tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 120 + 4}
    entries |= {277: 1, 278: height, 279: len(data), 339: kind}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + tags + struct.pack("<I", 0) + data


def open_tiff(values, dtype, bits=None, **options):
    data = tiff(values.astype(dtype), bits or 8 * np.dtype(dtype).itemsize, **options)
    return Image.open(io.BytesIO(data))


def pgm(values, highest):
    header = b"P5 %d %d %d\n" % (*values.shape[::-1], highest)
    return Image.open(io.BytesIO(header + values.astype(">u2").tobytes()))


@given(st.floats(0.001, 1), st.floats(0, 1))
def test_brightness_does_not_depend_on_the_format(brightest, darkest):
    """White is the largest value of the format, not of the image."""
    shares = np.linspace(darkest * brightest, brightest, 80).reshape(8, 10)
    expected = 255 * shares
    images = {
        "8 bits": Image.fromarray(expected.round().astype(np.uint8)),
        "12 bits": open_tiff((4095 * shares).round(), np.uint16, bits=12),
        "16 bits": open_tiff((65535 * shares).round(), np.uint16),
        "16 bits, 0 is white": open_tiff((65535 * (1 - shares)).round(), np.uint16, photometric=0),
        "PGM of 12 bits": pgm((4095 * shares).round(), 4095),
        "PGM of 16 bits": pgm((65535 * shares).round(), 65535),
        "floats": open_tiff(shares, np.float32, kind=3),
        "array of floats": Image.fromarray(shares.astype(np.float32)),
        "array of 16 bits": Image.fromarray((65535 * shares).round().astype(np.uint16)),
    }
    for name, image in images.items():
        pixels = np.asarray(to_rgb(image))[..., 0]
        assert abs(pixels - expected).max() <= 1.1, name


@given(
    st.sampled_from([(np.uint32, 1), (np.int32, 2), (np.int16, 2)]),
    st.integers(0, 32767),
    st.integers(0, 32767),
)
def test_integers_without_a_known_range_are_rejected(kind, low, high):
    dtype, sample_format = kind
    values = np.linspace(low, high, 80).reshape(8, 10)
    with pytest.raises(ImageError, match="range of 32-bit integers is unknown; convert them"):
        to_rgb(open_tiff(values, dtype, kind=sample_format))
    with pytest.raises(ImageError, match="unknown"):
        to_rgb(Image.fromarray(values.astype(np.int32)))


@given(st.sampled_from([-0.01, 1.01, 255.0, 4095.0, 1e30, np.nan, np.inf, -np.inf]))
def test_floats_outside_0_to_1_are_rejected(value):
    values = np.full((8, 10), 0.5, np.float32)
    values[2, 3] = value
    for image in (open_tiff(values, np.float32, kind=3), Image.fromarray(values)):
        with pytest.raises(ImageError, match=r"must be in \[0, 1\]"):
            to_rgb(image)
