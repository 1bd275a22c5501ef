"""Names of files: any bytes, as long as the file system allows, and files that are no files."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zfnet
from zfnet import plot
from zfnet.data.cache import digest
from zfnet.data.formats import ImageError, read_image
from zfnet.data.io import atomic_write, decode_name, encode_name, printable_name, write_text
from zfnet.data.labels import class_names, names_digest
from zfnet.plot import write_figure
from zfnet.training.soft_labels import label_boxes

# Any bytes but those of a path or a hidden file; most of them are no UTF-8.
NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & set(b"/\0") and not name.startswith(b".")
)
few = settings(max_examples=15, deadline=None)


@few
@given(NAMES, NAMES)
def test_names_of_any_bytes_are_kept_and_printable(first, second):
    names = [os.fsdecode(first), os.fsdecode(second)]
    assert [os.fsencode(decode_name(encode_name(name))) for name in names] == [first, second]
    assert (names_digest(names[:1]) == names_digest(names[1:])) == (first == second)
    assert (digest(names[0]) == digest(names[1])) == (first == second)
    for text in (printable_name(names[0]), *class_names(names)):
        assert text.encode().decode().isprintable()
    boxes = label_boxes(names, 2, 0, (0.5, 1), 1.2)
    assert torch.equal(boxes[0], boxes[1]) == (first == second)


@pytest.mark.parametrize("name", [b"caf\xe9$x", b"\n\xff"])
def test_a_class_folder_of_any_name(tmp_path_factory, name):
    """The tree is read, and a checkpoint keeps the folder's name."""
    root = tmp_path_factory.mktemp("names")
    for folder in (name + b"1", b"dog"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(root), folder)))
        path.mkdir()
        Image.new("RGB", (36, 30)).save(path / os.fsdecode(b"caf\xe9.png"))
    data = zfnet.load_folder(root, side=32, size=28)
    assert sorted(data.wnids) == sorted([os.fsdecode(name + b"1"), "dog"])
    assert pickle.loads(pickle.dumps(data)).names == data.names
    model = zfnet.mnist(2)
    model.classes, model.wnids = list(data.classes), list(data.wnids)
    folder = root / os.fsdecode(b"caf\xe9")
    zfnet.save(model, folder / "model.safetensors")
    loaded = zfnet.load(folder / "model.safetensors")
    assert loaded.wnids == data.wnids
    figure = plot.occlusion_figure(
        torch.zeros(1, 3, 8, 8), {}, np.zeros((2, 2), int), data.wnids, 4, 4, data.wnids[0]
    )
    write_figure(figure, folder / "figure.png")
    write_text(folder / "names.txt", data.wnids[0])
    assert (folder / "figure.png").stat().st_size > 1000
    assert (folder / "names.txt").read_text("utf-8")


@few
@given(st.integers(1, 255), st.sampled_from(["a", "é", os.fsdecode(b"\xff")]))
def test_names_as_long_as_the_file_system_allows(tmp_path_factory, length, letter):
    name = letter * (length // len(encode_name(letter))) or "a"
    path = tmp_path_factory.mktemp("long") / name
    with atomic_write(path) as partial:
        partial.write_text("complete")
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_refused_and_listed(tmp_path, kind):
    """Opening a pipe without a writer would wait forever."""
    import socket

    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (36, 30)).save(tmp_path / folder / "0.png")
    path = tmp_path / "cat" / "1.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.chdir(tmp_path / "cat")  # a socket's path is short
        try:
            socket.socket(socket.AF_UNIX).bind("1.png")
        finally:
            os.chdir(Path(__file__).parent)
    assert zfnet.load_folder(tmp_path, side=32, size=28).skipped == ["cat/1.png"]
    with pytest.raises(ImageError, match="is a pipe or a device"):
        read_image(path)


@few
@given(st.sampled_from(["u1", "u2", "f2", "f4", "f8"]), st.integers(0, 99))
def test_byte_order_has_no_effect(kind, seed):
    values = np.random.default_rng(seed).random((9, 12, 3))
    if kind[0] == "u":
        values = values * np.iinfo(kind).max
    little, big = (zfnet.preprocess(values.astype(order + kind), 8) for order in "<>")
    assert torch.equal(little, big)


@pytest.mark.parametrize("size", [2.5, "8", 0, None])
def test_a_size_is_a_whole_number(size):
    with pytest.raises(ValueError, match="size must be a whole number"):
        zfnet.preprocess(Image.new("RGB", (4, 4)), size)
