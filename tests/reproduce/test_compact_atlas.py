"""The compact atlas: its sheets, the commands that write and read it, and its size."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import zfnet
from reproduce import __main__
from reproduce.core.context import Context
from reproduce.site import atlas
from reproduce.site.atlas import files, sheets
from reproduce.site.atlas.layout import COMPACT, FULL, tile_side
from reproduce.site.atlas.look import look
from tests.conftest import ROOT
from tests.reproduce.conftest import shrink_atlas
from zfnet.cli.main import main
from zfnet.explorer.atlas import Atlas

LARGEST = 12_000_000  # bytes of the committed atlas


@pytest.fixture(scope="module")
def compact(atlas_run, tmp_path_factory):
    """The network and images of the small atlas as a context, and their compact atlas."""
    context = Context(str(atlas_run / "small.safetensors"), str(atlas_run / "tree"))
    folder = tmp_path_factory.mktemp("compact") / "atlas"
    with pytest.MonkeyPatch.context() as patch:
        shrink_atlas(patch)
        atlas.write(context, folder, layout=COMPACT)
    return context, folder


def test_blocks_and_tiles_are_inverse(tmp_path):
    tiles = np.random.default_rng(0).random((11, 9, 5, 5, 3)).astype(np.float32)
    sheets.write_picture(tmp_path / "sheet.webp", sheets.blocks(tiles), lossless=True)
    read = sheets.read_tiles(tmp_path / "sheet.webp", 5)
    assert read.shape == (16, 9, 5, 5, 3)  # two rows of eight features
    np.testing.assert_allclose(read[:11], tiles, atol=0.5 / 255 + 1e-6)


def test_tiles_are_as_small_as_the_layout_allows():
    fields = (3, 7, 27, 75, 139)
    assert [tile_side(field) for field in fields] == [48, 49, 54, 75, 90]
    assert [tile_side(field, COMPACT) for field in fields] == [3, 7, 27, 48, 48]


def test_a_compact_atlas_has_every_feature_in_fewer_bytes(compact, atlas_run):
    _, folder = compact
    index, full = files.read(folder, "index"), files.read(atlas_run / "atlas", "index")
    assert [layer["numbers"] for layer in index["layers"]] == [
        layer["numbers"] for layer in full["layers"]
    ]
    assert [layer["side"] for layer in index["layers"]] == [7, 27, 48, 48, 48]
    assert index["missing"] == []
    for layer in ("conv1", "conv3"):
        assert files.read(folder, layer) == files.read(atlas_run / "atlas", layer)
    for name in ("conv3-patches-0", "conv5-projections-0"):
        small, large = (f / "sheets" / f"{name}.webp" for f in (folder, atlas_run / "atlas"))
        assert small.stat().st_size < large.stat().st_size / 2
    thumbnails = len(files.read(folder, "classes")["classes"][0]["top"])
    assert thumbnails == COMPACT.images == 5
    # Another layout replaces the pictures of an earlier one.
    parts = index["parts"]
    assert files.prepare(folder, parts) == index
    assert parts != full["parts"]


def test_compact_tiles_show_the_full_ones(compact, atlas_run):
    _, folder = compact
    for layer, side in (("conv2", 27), ("conv5", 48)):
        small = sheets.read_tiles(folder / "sheets" / f"{layer}-patches-0.webp", side)
        field = {"conv2": 54, "conv5": 90}[layer]
        large = sheets.read_tiles(atlas_run / "atlas" / "sheets" / f"{layer}-patches-0.webp", field)
        difference = small.mean((2, 3)) - large.mean((2, 3))  # the mean color of each tile
        assert np.abs(difference).mean() < 0.02


def test_the_explorer_and_look_read_a_compact_atlas(compact, tmp_path, small_atlas_settings):
    context, folder = compact
    reader = Atlas(folder, context.model.info["sha256"])
    values, tiles = reader.neighbors("conv3", 5)
    expected = files.read(folder, "conv3")["features"][5]
    assert values["values"] == expected["value"]
    with Image.open(folder / "sheets" / "conv3-patches-0.webp") as image:
        sheet = np.asarray(image.convert("RGB"))
    # Feature 5, tile 4: the middle of the sixth block.
    top, left = 48, (3 * 5 + 1) * 48
    np.testing.assert_array_equal(tiles["patches"][4], sheet[top : top + 48, left : left + 48])
    zfnet.photograph("cat").save(tmp_path / "cat.png")
    look(context.model, "small", tmp_path / "cat.png", tmp_path / "page", folder)
    assert max(f["neighbors"] for f in files.read(tmp_path / "page", "conv3")["features"]) == 9
    copied = sheets.read_tiles(tmp_path / "page" / "sheets" / "conv3-patches.webp", 48)
    assert copied.shape == (8, 9, 48, 48, 3)


def test_top_reads_an_atlas_of_the_same_network(compact, atlas_run, tmp_path, monkeypatch, capsys):
    _, folder = compact
    monkeypatch.chdir(tmp_path)
    (tmp_path / "figures" / "samples").mkdir(parents=True)
    (tmp_path / "figures" / "samples" / "atlas").symlink_to(folder)
    arguments = ["top", "--model", str(atlas_run / "small.safetensors")]
    arguments += ["--layer", "conv3", "--channel", "5", "-k", "4"]
    assert main([*arguments, "-o", "atlas.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("read from the atlas" in line and "samples/atlas" in line for line in lines)
    expected = files.read(folder, "conv3")["features"][5]["value"][:4]
    ranked = [float(line.split()[1]) for line in lines if line[:2] in ("1.", "2.", "3.", "4.")]
    assert ranked == pytest.approx(expected, abs=1e-3)
    # --data searches anew, and finds the same activations in the images of the atlas.
    assert main([*arguments, "--data", str(atlas_run / "tree"), "-o", "data.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any("atlas" in line for line in lines)
    searched = [float(line.split()[1]) for line in lines if line[:2] in ("1.", "2.", "3.", "4.")]
    assert searched == pytest.approx(ranked, rel=1e-2)
    with Image.open("atlas.png") as picture, Image.open("data.png") as other:
        assert picture.size == other.size


def test_the_command_writes_the_atlas_of_the_corpus(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(__main__, "FIGURES", tmp_path)
    monkeypatch.setattr(atlas, "write", lambda *a, **o: calls.append((a[1], o["layout"])) or a[1])
    monkeypatch.setattr(__main__, "_report", lambda page, start: 0)
    for arguments, folder, layout in (
        (["--compact"], tmp_path / "samples" / "atlas", COMPACT),
        ([], tmp_path / "samples" / "atlas", FULL),
        (["--compact", "-o", str(tmp_path / "x")], tmp_path / "x", COMPACT),
    ):
        assert __main__.main(["atlas", *arguments]) == 0
        assert calls.pop() == (folder, layout)


def test_the_committed_atlas_is_small_and_complete():
    listed = ["git", "ls-files", "figures/imagenet65k/atlas"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in done.stdout.splitlines()]
    if not paths:
        pytest.skip("the atlas of imagenet65k is not committed yet")
    assert sum(path.stat().st_size for path in paths) <= LARGEST
    index = files.read(ROOT / "figures" / "imagenet65k" / "atlas", "index")
    assert index["missing"] == []
    assert index["checkpoint"] == zfnet.load("imagenet65k").info["sha256"]
    assert sum(len(layer["numbers"]) for layer in index["layers"]) == 1376
    assert len(index["classes"]) == len(index["kinds"]) == 1000


def test_reading_an_atlas_imports_no_reproduce():
    code = "import sys, zfnet.explorer.atlas; sys.exit('reproduce' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
