"""The atlas: its numbers against slow computations, interruptions, errors, and `look`."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from reproduce import __main__
from reproduce.core.context import Context
from reproduce.site import atlas
from reproduce.site.atlas import canonical, demos, files, sheets, summary, tables
from reproduce.site.atlas.look import look, open_atlas
from tests.reproduce.conftest import HOSTILE, small_network
from zfnet.analysis.statistics import bin_values
from zfnet.attribution.cam import maps_and_gradient
from zfnet.data.cache import DataError
from zfnet.plot import photograph, projection_image


@pytest.fixture
def table(context_and_atlas, cache):
    """The pass behind the atlas: its parts are in the cache."""
    context, _ = context_and_atlas
    (folder,) = cache.glob("atlas-*")
    return tables.tabulate(context.model, context.images, folder)


def test_the_table_matches_a_plain_forward_pass(context_and_atlas, table):
    context, _ = context_and_atlas
    x = context.images.batch(range(len(context.images)))
    t = zfnet.trace(context.model, x)
    edges = tables.edges()
    assert edges[0] == 2**-10
    for layer in ("conv1", "conv5"):
        maps = t[layer]
        torch.testing.assert_close(table.maximum[layer], maps.amax((2, 3)), rtol=1e-4, atol=1e-5)
        position = table.position[layer].long()
        there = maps.flatten(2).gather(
            2, (position[..., 0] * maps.shape[3] + position[..., 1])[..., None]
        )[..., 0]
        torch.testing.assert_close(there, maps.amax((2, 3)), rtol=1e-4, atol=1e-5)
        assert table.step[layer] == (2 if layer == "conv1" else 1)
        counted = maps[:, :, :: table.step[layer], :: table.step[layer]]
        for c in range(maps.shape[1]):
            values = counted[:, c].flatten().numpy()
            expected = [
                (values <= 0).sum(),
                *np.histogram(values[values > 0].clip(edges[0], edges[-1] * 0.999), edges)[0],
            ]
            assert np.abs(table.counts[layer][c].numpy() - expected).sum() <= 2e-4 * len(
                values
            )  # rounding moves a small_atlas_settings over an edge
    torch.testing.assert_close(table.logits, t.logits, rtol=1e-4, atol=1e-4)
    assert table.target.tolist() == context.images.labels.tolist()


def test_histogram_bins_are_half_octaves():
    values = bin_values()[(bin_values() >= 2**-10) & (bin_values() < 2.0**14)]
    counted = tables.histogram(values[None, None, :, None])[0]
    assert counted[0] == 0
    assert counted[1:].tolist() == [64] * tables.BINS  # 128 of those floats in each octave
    odd = torch.tensor([0.0, -1.0, 1e-9, 1.0, 1.49, 1.5, 1e9])
    assert tables.histogram(odd[None, None, :, None])[0].nonzero()[:, 0].tolist() == [
        0,
        1,
        21,
        22,
        tables.BINS,
    ]


def test_drive_is_gradient_times_activation(context_and_atlas, table):
    context, _ = context_and_atlas
    x, labels = context.images.batch([0, 8, 20]), context.images.labels[[0, 8, 20]]
    maps, gradient, _ = maps_and_gradient(context.model, x, labels.tolist(), "conv5")
    torch.testing.assert_close(
        table.drive[[0, 8, 20]], (maps * gradient).sum((2, 3)), rtol=1e-3, atol=1e-4
    )
    unbiased = zfnet.load(context.model_name)
    for name in ("fc6", "fc7", "fc8"):
        unbiased.get_submodule(name).bias.zero_()
    logits, target, share = tables.decide(unbiased, "conv5", maps, torch.full((3,), -1))
    assert target.tolist() == logits.argmax(1).tolist()
    torch.testing.assert_close(
        share.sum(1), logits.amax(1), rtol=1e-3, atol=1e-4
    )  # nothing else gives to it


def test_the_top_nine_match_the_search(context_and_atlas):
    context, folder = context_and_atlas
    found = zfnet.top_activations(context.model, context.images)
    for layer in ("conv2", "conv5"):
        for c, item in enumerate(files.read(folder, layer)["features"]):
            n = int((found[layer].value[c] > 0).sum())
            assert item["image"] == found[layer].index[c, :n].tolist()
            assert item["position"] == found[layer].position[c, :n].tolist()
            assert item["value"] == pytest.approx(found[layer].value[c, :n].tolist(), rel=1e-3)
    dead = files.read(folder, "conv5")["features"][2]
    assert (dead["value"], dead["zero"], dead["silent"], dead["classes"], dead["similar"]) == (
        [],
        1,
        1,
        [],
        [],
    )


def test_a_tile_is_the_patch_and_its_projection(context_and_atlas):
    context, folder = context_and_atlas
    item = files.read(folder, "conv3")["features"][5]
    tiles = {
        kind: sheets.read_tiles(folder / "sheets" / f"conv3-{kind}-0.webp", 75)
        for kind in sheets.KINDS
    }
    for rank in (0, 4):
        x = context.images.batch([item["image"][rank]])
        position = torch.tensor(item["position"][rank])
        p = zfnet.project(context.model, x, "conv3", 5, tuple(position.tolist()))
        top, left = p.corner[0].clamp(0, 224 - 75).tolist()
        for kind, image in (
            ("patches", photograph(x)),
            ("projections", projection_image(p.pixels[..., top : top + 75, left : left + 75])),
        ):
            shown = (
                image[0] if kind == "projections" else image[0, top : top + 75, left : left + 75]
            )
            assert np.abs(tiles[kind][5, rank] - shown).mean() < 0.06, (
                kind
            )  # but for the compression


def test_lift_error_and_selectivity_by_hand():
    maximum = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [2.0, 0.0], [9.0, 0.0]])
    lift, error, selectivity = summary.lifts(maximum, np.array([0, 0, 1, 1, -1]), 2)
    assert lift.tolist() == [[1, 1], [0, 0]]  # the image of no kind does not count
    assert error[0].tolist() == pytest.approx(
        [2**0.5 / 2**0.5 / 2, 0]
    )  # s = sqrt 2, over sqrt n, over the mean
    assert selectivity.tolist() == [0, 0]
    _, _, selectivity = summary.lifts(torch.tensor([[6.0], [2.0], [0.0]]), np.arange(3), 3)
    assert selectivity == pytest.approx([(6 - 1) / (6 + 1)])


def test_correlations_and_similarity_order():
    values = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    values[:, 4] = 2 * values[:, 0] + 1
    np.testing.assert_allclose(
        summary.correlations(values), np.corrcoef(values.T.numpy()), atol=1e-6
    )
    order = summary.similarity_order(summary.correlations(values))
    assert order[:2] == [0, 4]
    assert sorted(order) == list(range(5))
    values[:, 3] = 1
    assert summary.correlations(values)[3].tolist() == [0] * 5


def test_the_lift_of_every_class_is_saved(context_and_atlas, table):
    import base64

    context, folder = context_and_atlas
    lift, _, _ = summary.lifts(table.maximum["conv4"], context.images.labels, 3)
    levels = np.frombuffer(base64.b64decode(files.read(folder, "conv4")["lift"]), "u1").reshape(
        8, 3
    )
    stored = 2.0 ** ((levels.astype(float) - summary.ONE) / summary.OCTAVE)
    np.testing.assert_allclose(stored, lift, rtol=0.015)
    assert summary.levels(np.array([0, 1e-9, 1, 2, 1e9])).tolist() == [0, 1, 72, 96, 255]


def test_class_data_matches_the_predictions(context_and_atlas, table):
    context, folder = context_and_atlas
    predicted, labels = table.logits.argmax(1).numpy(), context.images.labels
    for c, item in enumerate(files.read(folder, "classes")["classes"]):
        assert item["images"] == 7
        assert item["correct"] == ((predicted == c) & (labels == c)).sum()
        assert dict(item["confused"]) == {
            k: n for k in range(3) if k != c and (n := ((predicted == k) & (labels == c)).sum())
        }
        assert item["top"][0] == int(table.logits[:, c].argmax())
        drive = table.drive[labels == c].mean(0)
        assert item["drive"][0] == [
            int(drive.argmax()),
            pytest.approx(float(drive.max()), rel=1e-3),
        ]


def test_unlabeled_crops_are_sorted_by_photograph():
    names, outputs, kind = summary.kinds(zfnet.load_samples())
    assert {"cat", "coffee"} <= set(names)
    assert set(outputs) == {-1}
    assert names[kind[0]] == zfnet.load_samples().names[0].split("@")[0]


class Stopped(Exception):
    pass


def stopping(after):
    """A progress bar that is interrupted after so many steps, over all loops."""
    steps = [0]

    def progress(items, total=None, desc=""):
        for item in items:
            steps[0] += 1
            if steps[0] > after:
                raise Stopped
            yield item

    return progress


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_interrupted_run_resumes_with_the_same_result(context_and_atlas, tmp_path, monkeypatch):
    context, whole = context_and_atlas
    monkeypatch.setenv("ZFNET_CACHE", str(tmp_path / "cache"))
    seen = []
    real = tables._compute_part
    monkeypatch.setattr(
        tables,
        "_compute_part",
        lambda *arguments: (seen.append(arguments[2].start), real(*arguments))[1],
    )
    # In the pass, before a layer, before the last layer, before the images.
    for after, whole_parts in ((1, 0), (4, 1), (6, 4), (4, 6)):
        again = Context(context.model_name, context.data, progress=stopping(after))
        again.opened["images"] = context.images
        with pytest.raises(Stopped):
            atlas.write(again, tmp_path / "atlas")
        missing = files.read(tmp_path / "atlas", "index")["missing"]
        assert (
            missing
            == ["conv5", "conv4", "conv3", "conv2", "conv1", "classes", "images"][whole_parts:]
        )
    again = Context(context.model_name, context.data)
    again.opened["images"] = context.images
    atlas.write(again, tmp_path / "atlas")
    assert seen == [0, 7, 14]  # nothing twice
    assert contents(tmp_path / "atlas") == contents(whole)


def test_a_finished_atlas_is_not_recomputed(context_and_atlas, monkeypatch):
    context, whole = context_and_atlas
    before = contents(whole)
    monkeypatch.setattr(
        atlas, "tabulate", lambda *arguments, **options: pytest.fail("it was computed again")
    )
    assert atlas.write(context, whole) == whole / "index.html"
    assert contents(whole) == before


def test_damaged_data_is_written_again(context_and_atlas, tmp_path):
    context, whole = context_and_atlas
    shutil.copytree(whole, tmp_path / "atlas")
    (tmp_path / "atlas" / "data" / "conv4.js").write_text('ATLAS["conv4"] = {"feat')
    for name in ("names", "image0"):
        (tmp_path / "atlas" / "data" / f"{name}.js").unlink()
    atlas.write(context, tmp_path / "atlas")
    assert contents(tmp_path / "atlas") == contents(whole)


def test_a_limited_atlas_and_its_progress(context_and_atlas, tmp_path):
    context, _ = context_and_atlas
    heard = []

    def progress(items, total=None, desc=""):
        heard.append(desc)
        return items

    context.progress = progress
    atlas.write(context, tmp_path / "a", limit=3)
    assert {"images", "conv1", "conv5", "occluding"} <= set(heard)
    index = files.read(tmp_path / "a", "index")
    assert index["layers"][-1]["numbers"] == [0, 4, 8]
    assert len(files.read(tmp_path / "a", "conv5")["features"]) == 3
    assert index["missing"] == []
    assert (
        atlas.write_sample(Context("imagenet65k", None), tmp_path / "a") is None
    )  # a reader's own is left alone
    assert files.prepare(tmp_path / "a", index["parts"]) == index
    assert files.prepare(tmp_path / "a", "of other inputs") == {}
    assert not any((tmp_path / "a" / folder).exists() for folder in files.FOLDERS)


def test_other_folders_are_not_overwritten(context_and_atlas, tmp_path, scenes_val):
    context, whole = context_and_atlas
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="name a new folder"):
        atlas.write(context, tmp_path)
    (tmp_path / "atlas.js").write_text("let theirs;")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="look"):
        files.prepare(tmp_path, "", look=True)
    assert (tmp_path / "data").exists()
    with pytest.raises(DataError, match="contains an atlas"):
        files.prepare(whole, "", look=True)
    assert (whole / "data" / "index.js").exists()
    other = Context(context.model_name, context.data)
    other.opened["images"] = scenes_val  # of 112 pixels
    with pytest.raises(DataError, match="224 pixels"):
        atlas.write(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_files_are_ascii_scripts_without_paths(context_and_atlas, tmp_path):
    _, whole = context_and_atlas
    files.save(tmp_path, "odd", {"</script>\u2028é": 1})
    assert files.read(tmp_path, "odd") == {"</script>\u2028é": 1}
    for path in (whole / "data").iterdir():
        text = path.read_text("ascii")
        assert text.startswith(f'ATLAS["{path.stem}"] = ')
        json.loads(text.partition(" = ")[2].rstrip(";\n"))
        assert str(whole.parent) not in text


def test_the_recorded_maps_match_occlude(context_and_atlas, table):
    context, folder = context_and_atlas
    data = files.read(folder, "image0")
    ((name, x, target),) = demos.choose(context, table)
    assert files.read(folder, "index")["demos"][0] == {
        "name": name,
        "target": target,
        "label": data["baseline"]["label"],
    }
    o = zfnet.occlude(context.model, x, target, **demos.OCCLUDER)
    for key in ("activation", "logit", "probability"):
        np.testing.assert_allclose(data[key], getattr(o, key).numpy(), rtol=1e-4, atol=1e-6)
    assert data["label"] == o.label.tolist()
    assert [[r, c] for r in data["rows"][:2] for c in data["columns"][:1]] == [
        [[top, bottom], [left, right]] for top, left, bottom, right in o.boxes[:2, 0].tolist()
    ]
    maps = zfnet.trace(context.model, x)["conv5"][0]
    assert [found["channel"] for found in data["maps"]] == maps.amax((1, 2)).argsort(
        descending=True
    )[:4].tolist()


def test_the_occluder_scales_with_the_image(small_atlas_settings, tmp_path):
    data = demos.record(zfnet.mnist(), torch.zeros(1, 3, 28, 28), None, tmp_path, "digit")
    assert (data["size"], data["stride"]) == (6, 2)  # 48 and, in tests, 16 of 224
    assert len(data["rows"]) == 12


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, arguments)])
    return __main__.main()


def test_look_shows_neighbors_from_the_atlas(context_and_atlas, tmp_path, monkeypatch, capsys):
    context, whole = context_and_atlas
    photo = tmp_path / f"{HOSTILE.replace('/', '')}.png"
    zfnet.photograph("cat").resize((300, 240)).save(photo)
    assert (
        command(
            monkeypatch,
            "look",
            photo,
            "-o",
            tmp_path / "page",
            "--atlas",
            whole,
            "--model",
            context.model_name,
        )
        == 0
    )
    assert "Open" in capsys.readouterr().out
    index = files.read(tmp_path / "page", "index")
    x = zfnet.preprocess(photo)
    t = zfnet.trace(context.model, x)
    assert index["look"]["prediction"][0][0] == int(t.logits.argmax())
    assert [a["name"] for a in index["look"]["attributions"]] == ["grad_cam", "saliency"]
    data = files.read(tmp_path / "page", "conv3")
    expected = t["conv3"][0].amax((1, 2)).argsort(descending=True)[:6].tolist()
    assert [feature["number"] for feature in data["features"]] == expected
    for kind in sheets.KINDS:
        copied = sheets.read_tiles(tmp_path / "page" / "sheets" / f"conv3-{kind}.webp", 75)
        there = sheets.read_tiles(whole / "sheets" / f"conv3-{kind}-0.webp", 75)
        assert np.abs(copied[:6] - there[expected]).mean() < 0.03  # compressed twice
    other = zfnet.load(small_network(tmp_path / "other.safetensors", classes=("a", "b", "c")))
    look(
        other, "other", photo, tmp_path / "page", whole
    )  # replaces the first, and takes no neighbors of another network
    assert "another network" in files.read(tmp_path / "page", "index")["look"]["reason"]
    assert {
        feature["neighbors"] for feature in files.read(tmp_path / "page", "conv5")["features"]
    } == {0}
    assert not (tmp_path / "page" / "sheets" / "conv3-patches.webp").exists()
    missing = open_atlas(tmp_path, other)
    assert missing.index == {}
    assert "no atlas" in missing.reason


def test_look_skips_damaged_sheets(context_and_atlas, tmp_path):
    context, whole = context_and_atlas
    shutil.copytree(whole, tmp_path / "atlas")
    (tmp_path / "atlas" / "sheets" / "conv3-patches-0.webp").unlink()
    sheet = tmp_path / "atlas" / "sheets" / "conv4-projections-0.webp"
    sheet.write_bytes(sheet.read_bytes()[:200])
    zfnet.photograph("cat").save(tmp_path / "cat.png")
    look(context.model, "small", tmp_path / "cat.png", tmp_path / "page", tmp_path / "atlas")
    shown = {
        n: max(f["neighbors"] for f in files.read(tmp_path / "page", n)["features"])
        for n in ("conv2", "conv3", "conv4")
    }
    assert shown == {"conv2": 9, "conv3": 0, "conv4": 0}


def test_wrong_input_is_one_line(context_and_atlas, tmp_path, monkeypatch, capsys):
    context, whole = context_and_atlas
    (tmp_path / "text.jpg").write_text("no image")
    photo = tmp_path / "cat.png"
    zfnet.photograph("cat").save(photo)
    zfnet.save(
        zfnet.zfnet(3, channels=(2, 2, 2, 2, 2), fc_units=4, in_channels=1),
        tmp_path / "gray.safetensors",
    )
    broken = zfnet.zfnet(3, channels=(2, 2, 2, 2, 2), fc_units=4)
    torch.nn.init.constant_(broken.conv3.weight, torch.nan)
    zfnet.save(broken, tmp_path / "broken.safetensors")
    model = ["--model", context.model_name]
    for arguments, message in (
        (
            ["atlas", "-o", tmp_path / "o", "--model", tmp_path / "broken.safetensors"],
            "weights that are not finite",
        ),
        (
            ["look", photo, "-o", tmp_path / "o", "--model", tmp_path / "broken.safetensors"],
            "weights that are not finite",
        ),
        (["look", tmp_path / "none.jpg", "-o", tmp_path / "o", *model], "no such file"),
        (["look", tmp_path / "text.jpg", "-o", tmp_path / "o", *model], "not a readable image"),
        (["look", tmp_path / "text.jpg", "-o", whole, *model], "not a readable image"),
        (["atlas", "--data", tmp_path / "nowhere", "-o", tmp_path / "o", *model], "no such folder"),
        (["atlas", "-o", tmp_path, *model], "name a new folder"),
        (["atlas", "-o", tmp_path / "o", "--model", "none"], "no bundled network"),
        (["atlas", "-o", tmp_path / "o", "--device", "abacus", *model], "'abacus' cannot be used"),
        (["atlas", "-o", tmp_path / "o", "--canonical", "zebra", *model], "zebra"),
        (
            ["atlas", "-o", tmp_path / "o", "--model", tmp_path / "gray.safetensors"],
            "takes 1 channels",
        ),
        (
            ["look", photo, "-o", tmp_path / "o", "--model", tmp_path / "gray.safetensors"],
            "takes 1 channels",
        ),
    ):
        assert command(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert message in said[0]
    assert not (tmp_path / "o").exists()


def test_an_interruption_says_how_to_resume(monkeypatch, capsys, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(atlas, "write", interrupted)
    assert command(monkeypatch, "atlas", "-o", tmp_path / "o") == 130
    assert "the same command continues" in capsys.readouterr().err


def test_canonical_images_are_drawn_on_request(context_and_atlas, tmp_path, monkeypatch):
    ascent = pytest.importorskip("zfnet.synthesis.ascent", reason="needs gradient ascent")
    context, _ = context_and_atlas
    monkeypatch.setitem(canonical.ASCENT, "steps", 3)
    context.progress = lambda items, total=None, desc="": items
    files.save(tmp_path, "index", {"missing": []})
    canonical.add(context, tmp_path, ["Afghan hound", "conv2/5"])
    drawn = files.read(tmp_path, "index")["canonical"]
    assert set(drawn) == {"class/1", "conv2/5"}
    for page, said in drawn.items():
        with Image.open(tmp_path / said["file"]) as image:
            assert image.size == (224, 224)
        assert ("probability" in said) == page.startswith("class")
    monkeypatch.setattr(ascent, "ascend", lambda *arguments, **options: pytest.fail("drawn again"))
    canonical.add(context, tmp_path, ["Afghan hound"])
    for name, message in (
        ("conv2/8", "conv2/0 to conv2/7"),
        ("conv2/x", "conv2/0"),
        ("conv2/²", "conv2/0"),
        ("zebra", "zebra"),
    ):
        with pytest.raises(DataError, match=message):
            canonical.resolve(context, [name])
