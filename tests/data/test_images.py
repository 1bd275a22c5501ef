"""Reading images of all modes, and errors that name the file."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

import zfnet
from zfnet.data.formats import ImageError, read_image
from zfnet.data.images import standardize, to_pixels


def gray_value(path) -> float:
    return float(np.asarray(read_image(path)).mean())


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "expected"),
    [
        ("L", 100, "png", 100), ("RGB", (100, 100, 100), "jpg", 100), ("CMYK", (0, 0, 0, 155), "jpg", 100), ("P", 100, "png", None),
        ("1", 1, "png", 255), ("RGBA", (0, 0, 0, 0), "png", 255), ("RGBA", (100, 100, 100, 255), "png", 100), ("LA", (0, 0), "png", 255),
        ("I;16", 25700, "png", 100), ("F", 0.5, "tif", 127.5), ("RGB", (9, 9, 9), "webp", 9), ("RGB", (7, 7, 7), "gif", 7),
    ],
)  # fmt: skip
def test_all_modes_are_converted_to_rgb(tmp_path, mode, color, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 9), color, dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.linspace(0, 1, 45, dtype=np.float32).reshape(5, 9))
    else:
        image = Image.new(mode, (9, 5), color)
    image.save(path)
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", (9, 5))
    if expected is not None:
        assert gray_value(path) == pytest.approx(expected, abs=1.5)
    assert zfnet.preprocess(path).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (255, 256), (257, 4)])
def test_images_of_any_size_are_resized_and_cropped(tmp_path, size):
    path = tmp_path / "image.png"
    # The mean color becomes zero.
    Image.new("RGB", size, (124, 116, 104)).save(path)
    x = zfnet.preprocess(path)
    assert x.shape == (1, 3, 224, 224)
    assert x.abs().max() < 0.02


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares a huge size: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def broken_files(folder):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    return {
        "truncated.jpg": content[: len(content) // 2], "empty.jpg": b"", "text.jpg": b"this is no image", "bomb.png": png_header(30_000, 30_000),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["truncated.jpg", "empty.jpg", "text.jpg", "bomb.png", "missing.jpg", "folder"]
)
def test_unreadable_files_are_named(tmp_path, name):
    contents = broken_files(tmp_path)
    if name in contents:
        (tmp_path / name).write_bytes(contents[name])
    if name == "folder":
        (tmp_path / name).mkdir()
    with pytest.raises(ImageError, match=name) as error:
        zfnet.preprocess(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "size",
    [
        (400, 300),
        (301, 480),
        (256, 256),
        (150, 97),
        (1000, 333),
        (500, 375),
        (640, 427),
        (401, 399),
    ],
)
def test_preprocess_equals_torchvision(size):
    """Resize the shorter side to 256 and crop the center, as in the paper."""
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3)).astype(np.uint8)
    steps = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    expected = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(
        steps(Image.fromarray(noise))
    )[None]
    torch.testing.assert_close(
        zfnet.preprocess(Image.fromarray(noise)), expected, rtol=0, atol=1e-6
    )


def test_panoramas_are_cropped_before_resizing():
    """Cropping before or after resizing differs only by rounding."""
    noise = np.random.default_rng(0).integers(0, 255, (10, 330, 3)).astype(np.uint8)
    resize_then_crop = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    difference = to_pixels(zfnet.preprocess(Image.fromarray(noise)))[0] - resize_then_crop(
        Image.fromarray(noise)
    )
    assert float(difference.abs().max()) < 1.5 / 255


def test_arrays_are_validated():
    gray = np.full((50, 60), 0.5)
    torch.testing.assert_close(
        zfnet.preprocess(gray),
        zfnet.preprocess(np.full((50, 60, 3), 128, dtype=np.uint8)),
        rtol=0,
        atol=0.02,
    )
    for array in (
        np.full((5, 5), 2.0),
        np.zeros((5, 5, 2), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.full((5, 5), np.nan),
        np.zeros((4, 4), np.int64),
    ):
        with pytest.raises(ValueError, match="image array"):
            zfnet.preprocess(array)
    with pytest.raises(TypeError, match="not list"):
        zfnet.preprocess([1, 2])


def test_standardize_does_not_change_its_input():
    pixels = torch.rand(3, 4, 5)
    original = pixels.clone()
    standardize(pixels)
    assert torch.equal(pixels, original)


def test_to_pixels_inverts_standardize():
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(
        to_pixels(standardize(pixels)) * 255, pixels.float(), rtol=0, atol=1e-3
    )


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 40)


def orientations(image):
    """Return an image as stored in each of the eight EXIF orientations."""
    turns = [None, 0, 3, 1, 5, 2, 6, 4]  # Pillow's codes of the inverse transpositions
    return [image if turn is None else image.transpose(turn) for turn in turns]


def test_all_eight_orientations_show_the_same_image(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    for number, stored in enumerate(orientations(image), start=1):
        exif = stored.getexif()
        exif[0x0112] = number
        stored.save(tmp_path / "turned.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "turned.png")), np.asarray(image)), (
            number
        )
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(stored)), np.asarray(image)), (
            number
        )


def test_damaged_exif_is_ignored(tmp_path):
    image = Image.new("RGB", (40, 20))
    entry = struct.Struct("<HHI4s").pack
    # XResolution has a wrong type here.
    tags = entry(0x0112, 3, 1, b"\x06\0\0\0") + entry(0x011A, 2, 4, b"72/1")
    damaged = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + tags + bytes(4)
    for exif, size in ((damaged, (20, 40)), (b"Exif\0\0no TIFF at all", (40, 20))):
        image.save(tmp_path / "bad.jpg", exif=exif)
        assert read_image(tmp_path / "bad.jpg").size == size


def test_pillow_images_equal_their_files(tmp_path):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (600, 900, 3)).astype(np.uint8)
    )
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as opened:
        assert torch.equal(zfnet.preprocess(opened), zfnet.preprocess(tmp_path / "turned.jpg"))
    assert zfnet.preprocess(image).is_contiguous()


def test_image_without_a_known_range_is_named(tmp_path):
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(ImageError, match=r"nan.tiff: values of mode F must be in \[0, 1\]"):
        zfnet.preprocess(tmp_path / "nan.tiff")


def test_empty_or_truncated_pillow_images_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="0 x 5 pixels is empty"):
        zfnet.preprocess(Image.new("RGB", (0, 5)))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) - 30])
    with (
        Image.open(tmp_path / "half.jpg") as lazy,
        pytest.raises(ImageError, match="cannot be read"),
    ):
        zfnet.preprocess(lazy)
