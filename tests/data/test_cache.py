"""Folders of images, their cache, the sample photographs, and scenes."""

import dataclasses
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zfnet
from tests.marks import linux, posix
from zfnet.data.cache import DataError, cache_dir, cached_array
from zfnet.data.dataset import Images
from zfnet.data.folders import load_folder
from zfnet.data.formats import ImageError
from zfnet.data.io import atomic_write, file_lock
from zfnet.data.labels import class_names, imagenet_names
from zfnet.data.samples import load_samples
from zfnet.data.scenes import SHAPES, draw_scene, load_scenes


def test_items_of_a_folder_equal_preprocess(tree):
    images = load_folder(tree / "train")
    assert len(images) == 24
    assert list(images.wnids) == ["n01440764", "n02088094", "n03000000"]
    x, label = images[9]
    assert label == 1
    assert torch.equal(x, zfnet.preprocess(tree / "train" / images.names[9])[0])
    assert torch.equal(images.batch([3, 9])[1], x)
    assert images.pixels.dtype == np.uint8
    assert images.pixels.shape[1:] == (256, 256, 3)


def test_images_are_decoded_once(tree, monkeypatch):
    first = load_folder(tree / "val", side=64, size=56)
    monkeypatch.setattr("zfnet.data.folders.read_image", lambda *a: pytest.fail("decoded again"))
    second = load_folder(tree / "val", side=64, size=56)
    assert np.array_equal(first.pixels, second.pixels)
    assert first.digest == second.digest


def test_interrupted_decoding_leaves_no_files(tree, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    def entries():
        return {path for path in cache_dir().iterdir() if path.suffix != ".lock"}

    before = entries()
    monkeypatch.setattr("zfnet.data.folders.center", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_folder(tree / "val", side=72, size=63)
    assert entries() == before


def test_cache_without_metadata_is_computed_again(tree):
    images = load_folder(tree / "val", side=70, size=63)
    metadata = list(cache_dir().glob("*-70.json"))
    assert len(metadata) == 1
    metadata[0].unlink()
    recomputed = load_folder(tree / "val", side=70, size=63)
    assert recomputed.digest == images.digest
    assert np.array_equal(recomputed.pixels, images.pixels)


def test_empty_trees_and_empty_classes_are_errors(tmp_path, tree):
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_folder(tmp_path / "empty")
    (tree / "train" / "n09999999").mkdir()
    with pytest.raises(DataError, match=r"1 class folders without images: n09999999"):
        load_folder(tree / "train")


def test_unreadable_files_are_counted_listed_and_skipped_on_request(tree):
    unreadable = [tree / "train" / "n02088094" / name for name in ("bad1.JPEG", "bad2.png")]
    for path in unreadable:
        path.write_bytes(b"no image")
    for _ in range(2):  # the second time reads the cache
        with pytest.raises(DataError, match=r"2 of 26 files are unreadable") as error:
            load_folder(tree / "train", side=64, size=56)
        assert all(path.name in str(error.value) for path in unreadable)
        images = load_folder(tree / "train", side=64, size=56, skip_unreadable=True)
        assert len(images) == 24
        assert list(images.skipped) == ["n02088094/bad1.JPEG", "n02088094/bad2.png"]
        assert (images.raw(range(24)).flatten(1).max(1).values > 0).all()
        assert images.names[-1].startswith("n03000000")
        assert images.raw([23]).float().mean((0, 1, 2)).argmax() == 2  # the image of that name


def test_black_images_are_readable(tree):
    Image.new("RGB", (30, 30)).save(tree / "val" / "n02088094" / "black.png")
    for _ in range(2):
        assert len(load_folder(tree / "val", side=64, size=56, skip_unreadable=True)) == 10


def test_labels_follow_wordnet_ids_not_positions(tree):
    images = load_folder(tree / "val", side=64, size=56)
    wnids = ["n03000000", "n05000000", "n01440764", "n02088094"]
    aligned = images.aligned(wnids, wnids)
    assert [wnids[i] for i in aligned.labels] == [name.split("/")[0] for name in images.names]
    with pytest.raises(DataError, match="n02088094"):
        images.aligned(["n01440764", "n03000000"], ["a", "b"])


def test_limit_keeps_the_first_of_each_class(tree):
    images = load_folder(tree / "train", side=64, size=56, limit=2)
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_hidden_files_are_ignored(tree):
    (tree / "train" / "n01440764" / "._n01440764_0.JPEG").write_bytes(
        b"resource fork written by macOS"
    )
    assert len(load_folder(tree / "train", side=64, size=56)) == 24


def test_imagenet_names_need_all_1000_classes():
    names = imagenet_names()
    assert len(names) == 1000
    assert names[160] == "Afghan hound"
    assert class_names(["n01440764", "n02088094"]) == ["n01440764", "n02088094"]
    ids = zfnet.load("imagenet65k").wnids
    assert class_names(ids) == list(names)
    other_ids = [*ids[:-1], "n99999999"]  # 1000 WordNet ids, one of them wrong
    assert class_names(other_ids) == other_ids


def test_samples_are_about_500_crops_at_three_scales():
    images = load_samples()
    assert 450 <= len(images) <= 600
    assert images.groups is not None
    photographs = {name.split("@")[0] for name in images.names}
    assert len(set(images.groups.tolist())) == 3 * len(photographs)
    name, box = images.names[40].split("@")
    crop = zfnet.photograph(name).crop(tuple(map(int, box.split(",")))).resize((256, 256), 2)
    assert np.abs(np.asarray(crop, int) - images.pixels[40]).mean() < 3
    assert images[0][1] == -1


def test_scenes_are_deterministic_with_a_true_mask():
    scene = draw_scene(3, size=96, seed=5)
    assert np.array_equal(scene.image, draw_scene(3, size=96, seed=5).image)
    assert not np.array_equal(scene.image, draw_scene(3, size=96, seed=6).image)
    assert (scene.image.shape, scene.mask.shape, scene.label) == ((96, 96, 3), (96, 96), 3)
    top, left, bottom, right = scene.box
    outside = scene.mask.copy()
    outside[top:bottom, left:right] = False
    assert scene.mask.any()
    assert not outside.any()
    assert scene.mask[top].any()
    assert scene.mask[:, right - 1].any()


def test_scenes_are_the_same_at_any_size():
    small, large = draw_scene(17, size=64), draw_scene(17, size=256)
    downsampled = large.mask.reshape(64, 4, 64, 4).mean((1, 3)) > 0.5
    assert (downsampled ^ small.mask).mean() < 0.01


def test_only_the_shape_predicts_the_class_of_a_scene():
    images = load_scenes(200, seed=3, size=56, side=64)
    assert images.masks is not None
    colors = np.array([p[m].mean(0) for p, m in zip(images.pixels, images.masks, strict=True)])
    means = np.array([colors[images.labels == i].mean(0) for i in range(len(SHAPES))])
    # Mean colors of classes differ by chance only.
    assert means.std(0).max() < 0.6 * colors.std(0).mean()
    with pytest.raises(ValueError, match="label"):
        draw_scene(0, label=10)


def test_digest_depends_on_contents(tmp_path):
    """Compare two trees with equal names and file sizes, and one whose files change."""
    for split, color in (("train", "red"), ("val", "blue")):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (64, 64), color).save(tmp_path / split / "a" / "0.bmp")
    red, blue = (load_folder(tmp_path / split, side=64, size=56) for split in ("train", "val"))
    assert red.raw([0])[0, 0, 0].tolist() == [255, 0, 0]
    assert blue.raw([0])[0, 0, 0].tolist() == [0, 0, 255]
    assert red.digest != blue.digest
    copy = tmp_path / "elsewhere"
    (tmp_path / "train").rename(copy)
    assert load_folder(copy, side=64, size=56).digest == red.digest
    Image.new("RGB", (64, 64), "lime").save(copy / "a" / "0.bmp")
    assert load_folder(copy, side=64, size=56).raw([0])[0, 0, 0].tolist() == [0, 255, 0]


def test_crop_larger_than_the_image_is_an_error(tree):
    with pytest.raises(
        ValueError, match="a crop of 224 pixels is larger than the decoded images, 128 x 128"
    ):
        load_folder(tree / "val", side=128)


def test_unwritable_cache_is_replaced_or_named(tree, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ZFNET_CACHE", str(blocked / "cache"))
    with pytest.raises(DataError, match="set ZFNET_CACHE"):
        load_folder(tree / "val")
    monkeypatch.delenv("ZFNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_dir() == tmp_path / "zfnet"


def test_files_that_become_readable_are_decoded(tree, monkeypatch):
    from zfnet.data import folders

    def raise_error(path):
        raise ImageError(f"{path}: Permission denied")

    original = folders.read_image
    monkeypatch.setattr(
        folders,
        "read_image",
        lambda path: raise_error(path) if path.name == "n01440764_0.JPEG" else original(path),
    )
    images = load_folder(tree / "val", skip_unreadable=True)
    assert images.skipped
    monkeypatch.setattr(folders, "read_image", original)
    assert not load_folder(tree / "val").skipped


@pytest.mark.parametrize("damaged", ["*.npy", "*.json"])
def test_damaged_caches_are_computed_again(tree, tmp_path, monkeypatch, damaged):
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path / "cache"))
    images = load_folder(tree / "val")
    expected = images.batch([0, 1])
    (path,) = (tmp_path / "cache").glob(damaged)
    content = path.read_bytes()
    path.unlink()  # an open memory map remains valid
    path.write_bytes(content[: len(content) // 2])
    recomputed = load_folder(tree / "val")
    assert recomputed.digest == images.digest
    assert torch.equal(recomputed.batch([0, 1]), expected)


def test_full_disk_is_reported_before_decoding(tree, monkeypatch):
    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", disk_full)
    with pytest.raises(DataError, match="no space for 0.0 GiB of decoded images"):
        load_folder(tree / "val", side=250)


def test_concurrent_writers_never_expose_partial_files(tmp_path):
    path, partial_reads = tmp_path / "file", []

    def write(text):
        for _ in range(60):
            with atomic_write(path) as partial:
                partial.write_text(text * 10_000)

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, text) for text in "abc"]
        while not all(writer.done() for writer in writers):
            if path.exists() and len(set(path.read_text())) != 1:
                partial_reads.append(path)
        assert not [writer.result() for writer in writers if writer.exception()]
    assert not partial_reads
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_stale_partial_files_are_removed(tmp_path):
    old, new = tmp_path / ".file.0a.partial", tmp_path / ".file.0b.partial"
    for path in (old, new):
        path.write_text("part")
    os.utime(old, (0, 0))
    with atomic_write(tmp_path / "file") as partial:
        partial.write_text("all")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".file.0b.partial", "file"]


def test_partial_files_of_a_killed_decoding_are_removed_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path))
    partial = tmp_path / ".name.npy.0a.partial"
    partial.write_text("part")
    partial_exists = []

    def fill(array):
        partial_exists.append(partial.exists())
        return {}

    cached_array("name", (1, 2, 2, 3), fill)
    assert partial_exists == [False]


def test_locks_are_exclusive(tmp_path):
    lock = file_lock(tmp_path / "lock", wait=False)
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(BlockingIOError, match="locked by another"),
        lock,
    ):
        pass
    with file_lock(tmp_path / "lock", wait=False):
        pass


def test_lock_is_released_when_its_process_dies(tmp_path):
    code = (
        "import sys, time, pathlib; from zfnet.data.io import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
            pass
        process.kill()
        process.wait()
        with file_lock(tmp_path / "lock", wait=False):
            pass


def test_classes_without_readable_images_are_an_error(tree):
    for file in (tree / "val" / "n03000000").iterdir():
        file.write_text("no image")
    with pytest.raises(DataError, match="val: no image is readable in 1 class folders: n03000000"):
        load_folder(tree / "val", side=72, size=64, skip_unreadable=True)


@posix
def test_broken_links_are_unreadable_images(tree):
    (tree / "val" / "n03000000" / "link.jpg").symlink_to(tree / "moved.jpg")
    with pytest.raises(
        DataError, match=r"1 of 10 files are unreadable(.|\n)*link\.jpg: no such file"
    ):
        load_folder(tree / "val", side=72, size=64)
    assert load_folder(tree / "val", side=72, size=64, skip_unreadable=True).skipped == [
        "n03000000/link.jpg"
    ]


@posix
def test_cache_without_a_home_folder(monkeypatch, tmp_path):
    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path / "chosen"))
    assert cache_dir() == tmp_path / "chosen"
    monkeypatch.delenv("ZFNET_CACHE")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_dir() == tmp_path / "zfnet"


@linux
def test_cache_follows_the_xdg_base_directories(monkeypatch, tmp_path):
    monkeypatch.delenv("ZFNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "zfnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "zfnet"


@linux
def test_file_names_may_contain_any_bytes(tree):
    os.rename(
        tree / "val" / "n01440764" / "n01440764_0.JPEG",
        os.fsencode(tree / "val" / "n01440764") + b"/caf\xe9.JPEG",
    )
    assert len(load_folder(tree / "val")) == 9


@posix
def test_atomic_write_keeps_links_and_devices(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_write(tmp_path / "link.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")  # represents a device, which only root can create
    with (
        pytest.raises(FileExistsError, match="pipe exists and is not a regular file"),
        atomic_write(tmp_path / "pipe") as partial,
    ):
        partial.write_text("new")
    assert (tmp_path / "pipe").is_fifo()


def test_load_folder_by_names(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    images = load_folder(tmp_path, side=8, size=8, names=["b/1.png", "a/2.png"])
    assert list(images.names) == ["a/2.png", "b/1.png"]
    assert images.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="2 files are missing, such as a/3.png"):
        load_folder(tmp_path, side=8, size=8, names=["a/1.png", "a/3.png", "c/1.png"])


@pytest.mark.parametrize("kind", ["folder", "subset", "samples", "scenes", "torch subset"])
def test_pickling_sends_the_path_of_mapped_pixels(tree, kind):
    folder = load_folder(tree / "train")
    images = {
        "folder": lambda: folder,
        "subset": lambda: folder.subset([5, 1]),
        "samples": load_samples,
        "scenes": lambda: load_scenes(20, size=56, side=64),
        "torch subset": lambda: torch.utils.data.Subset(folder, [5, 1]),
    }[kind]()
    pickled = pickle.dumps(images)
    decoded = images if isinstance(images, Images) else folder
    assert len(pickled) < 0.1 * decoded.pixels.nbytes
    unpickled = pickle.loads(pickled)
    for i in (0, len(images) - 1):
        assert torch.equal(unpickled[i][0], images[i][0])
        assert unpickled[i][1] == images[i][1]


def test_pickling_preserves_views_of_pixels(tree):
    folder = load_folder(tree / "train", side=32, size=28)
    for view in (np.s_[3:7], np.s_[3:7, :, ::-1], np.s_[-4:, 1:-1, 1:-1], np.s_[3:7, ..., ::2]):
        for pixels in (folder.pixels[view], np.array(folder.pixels[view])):
            images = dataclasses.replace(folder.subset(range(4)), size=20, pixels=pixels, rows=None)
            unpickled = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(images))))
            assert np.array_equal(unpickled.pixels, pixels)
            assert not unpickled.pixels.flags.writeable or pixels.flags.writeable


def test_spawned_worker_maps_the_pixels(tree):
    images = load_folder(tree / "val", side=32, size=28)
    loader = torch.utils.data.DataLoader(
        images, 9, num_workers=1, multiprocessing_context="spawn", generator=torch.Generator()
    )
    x, labels = next(iter(loader))
    assert torch.equal(x, images.batch(range(9)))
    assert labels.tolist() == images.labels.tolist()


NAMES = st.sampled_from(
    ["1.jpg", "2.jfif", "3.pgm", "4.JPEG", "5.webp", "6.ico", "note.txt", "7", ".8.png", "9.pdf"]
)
FOLDERS = st.sampled_from(["", "cat", "cat/more", "cat/a/b", "dog", "dog/.hidden"])


@settings(deadline=None, max_examples=40)
@given(st.sets(st.tuples(FOLDERS, NAMES)))
def test_every_file_is_loaded_or_named(files):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for subfolder, name in {*files, ("cat", "0.png"), ("dog", "0.png")}:
            path = root / subfolder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".txt", ".pdf", ""):
                path.write_text("text")
            else:
                format = {".jfif": "JPEG", ".pgm": "PPM", ".jpg": "JPEG"}.get(path.suffix.lower())
                Image.new("L", (40, 40)).save(path, format)
        visible = {
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.parts[len(root.parts) :])
        }
        images = load_folder(root, side=32, size=28)
        assert {*images.names, *images.skipped} == visible
        assert len(images.names) + len(images.skipped) == len(visible)
        assert all(
            Path(name).suffix in (".txt", ".pdf", "") or "/" not in name for name in images.skipped
        )
        expected = torchvision.datasets.ImageFolder(folder).samples
        expected = [Path(path).relative_to(root).as_posix() for path, _ in expected]
        expected = [name for name in expected if name in visible]
        assert [
            name for name in images.names if name in expected
        ] == expected  # all of them, in the order of torchvision
        last = images.names[-1]
        assert list(load_folder(root, side=32, size=28, names=[last]).names) == [last]


def test_splits_are_not_classes(tree):
    with pytest.raises(DataError, match=r"contains splits, not classes; pass .*train"):
        load_folder(tree)


def test_link_to_a_parent_folder_is_followed_once(tree):
    (tree / "val" / "n01440764" / "link").symlink_to(tree / "val" / "n01440764")
    assert len(load_folder(tree / "val", side=32, size=28)) == 9
