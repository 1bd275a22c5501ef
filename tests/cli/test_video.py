"""Animations: order of frames, shared scales, and errors."""

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from tests.conftest import random_he
from zfnet.cli import main
from zfnet.data.cache import DataError
from zfnet.data.formats import ImageError
from zfnet.data.frames import load_frames, natural_sort_key
from zfnet.plot import attribution_image, overlay_frames, write_gif


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Save a small network whose first class is the brightness of the upper half."""
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    zfnet.save(
        random_he(zfnet.zfnet(3, norm="none", channels=(6, 8, 8, 8, 6), fc_units=8, size=64)), path
    )
    return str(path)


def moving_squares(n=5, side=40, seed=0):
    """Return n images of a bright square that moves to the right."""
    frames = np.full((n, side, side, 3), 40, dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[8:20, 4 + 5 * i : 16 + 5 * i] = (220, 180, 40)
    return [Image.fromarray(f) for f in frames]


@pytest.fixture
def gif(tmp_path):
    path = tmp_path / "moving.gif"
    images = moving_squares()
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[50, 60, 70, 80, 90], loop=0
    )
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    for i, image in enumerate(moving_squares(12, 80)):
        image.save(path / f"frame{i + 1}.png")
    (path / "notes.txt").write_text("not a frame")
    return path


def test_folders_are_read_in_natural_order(folder):
    frames = load_frames(folder, 64)
    assert frames.x.shape == (12, 3, 64, 64)
    assert frames.milliseconds == [100] * 12
    for x, image in zip(frames.x, moving_squares(12, 80), strict=True):
        assert torch.equal(x, zfnet.preprocess(image, 64)[0])
    names = ["b2.png", "a10.png", "a2.png", "a2b.png", "10.png", "9.png"]
    assert sorted(names, key=lambda n: natural_sort_key(folder / n)) == [
        "9.png",
        "10.png",
        "a2.png",
        "a2b.png",
        "a10.png",
        "b2.png",
    ]
    # The order does not depend on that of the directory listing.
    for pair in (["a01.png", "a1.png"], ["a1.png", "a01.png"], ["²1.png", "a1.png"]):
        assert sorted(pair, key=lambda n: natural_sort_key(folder / n)) == sorted(
            pair, key=lambda n: (n[0] != "a", n)
        )


def test_frames_and_durations_of_a_gif(gif):
    frames = load_frames(gif, 64)
    assert frames.milliseconds == [50, 60, 70, 80, 90]
    expected = torch.cat([zfnet.preprocess(image, 64) for image in moving_squares()])
    torch.testing.assert_close(frames.x, expected, atol=0.15, rtol=0)  # GIF has a coarse palette


def test_wrong_animations_are_rejected(tmp_path, gif):
    still = tmp_path / "still.gif"
    moving_squares(1)[0].save(still)
    with pytest.raises(DataError, match="still image"):
        load_frames(still)
    with pytest.raises(ImageError, match="no such file or folder"):
        load_frames(tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no images; expected"):
        load_frames(empty)
    moving_squares(1, 40)[0].save(empty / "1.png")
    with pytest.raises(DataError, match="still image"):
        load_frames(empty)
    moving_squares(1, 44)[0].save(empty / "2.png")
    with pytest.raises(DataError, match=r"2.png is 44 x 44 pixels, but the first frame 40 x 40"):
        load_frames(empty)
    (empty / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"2.png: not a readable image"):
        load_frames(empty)
    cut = tmp_path / "cut.gif"
    cut.write_bytes(gif.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"cut.gif: not a readable animation"):
        load_frames(cut)


def test_gif_is_written_atomically(tmp_path):
    frames = np.stack([np.asarray(image) for image in moving_squares(3)])
    path = tmp_path / "deep" / "out.gif"
    write_gif(frames, path, [40, 50, 60])
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (3, (40, 40), 0)
        for i, frame in enumerate(frames):
            image.seek(i)
            assert image.info["duration"] == 40 + 10 * i
            assert abs(np.asarray(image.convert("RGB")).astype(int) - frame).max() <= 8
    assert [p.name for p in path.parent.iterdir()] == ["out.gif"]


def test_frames_share_one_scale():
    maps = np.zeros((2, 1, 10, 10), dtype=np.float32)
    maps[0, 0, :5], maps[1, 0, :5] = 4.0, 1.0
    shared, top = attribution_image(maps, shared_scale=True)
    assert top.tolist() == [4, 4]
    assert shared[0, 0, 0].sum() > shared[1, 0, 0].sum() > shared[1, 9, 9].sum()
    separate, tops = attribution_image(maps)
    assert tops.tolist() == [4, 1]
    assert np.array_equal(separate[0], separate[1])
    maps[1, 0, 9] = -2.0  # with a negative value, all frames use the signed colormap
    signed, _ = attribution_image(maps, shared_scale=True)
    assert signed[0, 9, 9].min() > 0.9  # zero is white
    side_by_side = overlay_frames(torch.zeros(2, 3, 10, 10), shared)
    assert side_by_side.shape == (2, 10, 24, 3)
    assert (side_by_side[:, :, 10:14] == 255).all()


@pytest.mark.parametrize(
    "arguments", ["", "--method saliency --target 1", "--method occlusion", "--method projection --layer conv2", "--method projection --channel 3", "--method projection --layer fc7"]
)  # fmt: skip
def test_every_method_on_a_video(arguments, gif, model, tmp_path, capsys):
    out = tmp_path / "maps.gif"
    assert main(["video", str(gif), "--model", model, "-o", str(out), *arguments.split()]) == 0
    with Image.open(out) as image:
        assert (image.n_frames, image.size) == (5, (132, 64))
        times, maps = [], []
        for i in range(5):
            image.seek(i)
            times.append(image.info["duration"])
            maps.append(np.asarray(image.convert("RGB"))[:, 68:])
    assert times == [50, 60, 70, 80, 90]
    assert any(not np.array_equal(maps[0], map) for map in maps[1:])
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {out}: 5 frames, ")
    assert ("projections of " if "projection" in arguments else "in every frame") in printed


def test_uninformative_maps_are_reported(gif, tmp_path, capsys):
    model = random_he(zfnet.zfnet(3, norm="none", channels=(6, 8, 8, 8, 6), fc_units=8, size=64))
    model.fc8.weight.data.zero_()
    zfnet.save(model, tmp_path / "zero.safetensors")
    assert (
        main(
            [
                "video",
                str(gif),
                "--model",
                str(tmp_path / "zero.safetensors"),
                "-o",
                str(tmp_path / "maps.gif"),
            ]
        )
        == 0
    )
    assert (
        "5 of 5 maps do not explain their frame; the first, of frame 1, is all zero"
        in capsys.readouterr().err
    )


def test_video_of_a_folder(folder, model, tmp_path):
    out = tmp_path / "maps.gif"
    assert (
        main(
            ["video", str(folder), "--model", model, "--method", "gradient_x_input", "-o", str(out)]
        )
        == 0
    )
    with Image.open(out) as image:
        assert image.n_frames == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{gif} -o out.mp4", "must end in .gif"), ("{gif} -o {gif}", "would overwrite the frames"),
        ("nothing -o out.gif", "nothing: no such file or folder"), ("{gif} --target hond -o out.gif", "no class 'hond'"),
        ("{gif} --method projection --channel 99 -o out.gif", "conv5 has channels 0 to 5, got --channel 99"),
        ("{gif} --method projection --target 1 -o out.gif", "--target cannot be used with --method projection"),
        ("{gif} --layer conv5 -o out.gif", "--layer cannot be used with --method grad_cam"),
        ("{gif} --method projection --layer conv9 -o out.gif", "no layer 'conv9'"),
        ("{gif} --method cam -o out.gif", "use grad_cam"), ("{still} -o out.gif", "a still image"),
    ],
)  # fmt: skip
def test_invalid_input_is_reported_on_one_line(
    arguments, message, gif, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    still = tmp_path / "still.png"
    moving_squares(1)[0].save(still)
    assert main(["video", "--model", model, *arguments.format(gif=gif, still=still).split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zfnet ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out.gif").exists()
