"""The command line: describe, train, eval, top, project, occlude, explain, video. Wrong input: one line and exit status 2."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from zfnet import plot
from zfnet.activations import UnknownLayer, UnsupportedNetwork, trace
from zfnet.checkpoint import CheckpointError, load
from zfnet.config import ConfigError, load_config
from zfnet.data import silent
from zfnet.data.cache import DataError, Images
from zfnet.data.digits import load_digits
from zfnet.data.folders import load_folder, scan
from zfnet.data.frames import load_frames
from zfnet.data.images import ImageError, preprocess
from zfnet.data.samples import load_samples
from zfnet.data.scenes import load_scenes
from zfnet.deconv import cut, project
from zfnet.evaluation import evaluate
from zfnet.memory import keep_freed
from zfnet.methods.explain import METHODS, explain
from zfnet.model import ARCHITECTURES, Network, describe, device_of
from zfnet.occlusion import occlude
from zfnet.parallel import ParallelError, join
from zfnet.plan import plan_run
from zfnet.record import write_figure, write_gif
from zfnet.top import top_activations
from zfnet.train import Status, TrainingError, check_classes, train
from zfnet.training.distill import load_labels

DEFAULT = "imagenet65k"
PROJECTION = "projection"  # beside the methods of METHODS: what else `video` shows
USER_ERRORS = (
    CheckpointError, ConfigError, DataError, ImageError, ParallelError, TrainingError, UnknownLayer, UnsupportedNetwork,
)  # fmt: skip
progress_bar = functools.partial(tqdm, dynamic_ncols=True, leave=False, disable=None)  # None: not where it is no terminal


class Parser(argparse.ArgumentParser):
    """argparse, with an error of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


class UserError(Exception):
    """Input that the command cannot use: shown as one line, exit status 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 where the input was wrong."""
    options = parser().parse_args(arguments)
    if arguments is None:  # a process of its own, not a call from a program
        keep_freed()
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32: TF32 moves switches between near-equal cells
    try:
        with plot.style():
            options.run(options)
    except (*USER_ERRORS, UserError, OSError) as error:
        print(f"zfnet {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"zfnet {options.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="zfnet", description="Train ZFNet and look inside it, as Zeiler & Fergus did.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def analyses(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--model", default=DEFAULT, help=f"a bundled network or a checkpoint (default {DEFAULT})")
        sub.add_argument("--device", default="auto", help="cpu, cuda, or auto")

    sub = command("describe", run_describe, "print a network as the table of Fig. 3")
    sub.add_argument("--arch", default="zfnet", choices=sorted(ARCHITECTURES))
    sub.add_argument("--model", help="a bundled network or a checkpoint, instead of --arch")

    sub = command("train", run_train, "train a network by a configuration file")
    sub.add_argument("config", type=Path)
    sub.add_argument("--data", help="a tree with train/<class>/ and val/<class>/ (sets data.path)")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key, as optim.lr=0.02")
    sub.add_argument("--out", type=Path, help="where the run is kept (default runs/NAME)")
    sub.add_argument(
        "--resume", action="store_true", help="continue the run in --out from its last finished epoch; --init is not read"
    )
    sub.add_argument("--init", help="start from the weights of this checkpoint, by path or bundled name")
    sub.add_argument("--skip-unreadable", action="store_true", help="leave unreadable images out instead of stopping")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--dry-run", action="store_true", help="check tree, memory and time, and train nothing")

    sub = command("eval", run_eval, "measure top-1 and top-5 error over a tree of images")
    sub.add_argument("--data", required=True, type=Path, help="a tree <class>/*.JPEG, or one with val/ in it")
    sub.add_argument("--views", type=int, default=1, choices=(1, 10), help="one centre crop, or the paper's ten")
    sub.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    sub.add_argument("--skip-unreadable", action="store_true")
    analyses(sub)

    sub = command("top", run_top, "find and show the strongest activations of a feature over a set of images")
    sub.add_argument("--data", type=Path, help="a tree of images (default: the sample photographs)")
    sub.add_argument("--layer", default="conv5")
    sub.add_argument("--channel", type=int, default=0)
    sub.add_argument("-k", type=int, default=9)
    sub.add_argument("--skip-unreadable", action="store_true")
    sub.add_argument(
        "-o", "--out", type=Path, default=Path("top.png"), help="a picture, or .safetensors for all channels' table"
    )
    analyses(sub)

    sub = command("project", run_project, "project a feature's activation in an image to pixels")
    sub.add_argument("image")
    sub.add_argument("--layer", default="conv5")
    sub.add_argument("--channel", type=int, help="default: the channel with the strongest activation")
    sub.add_argument("--position", type=int, nargs=2, metavar=("ROW", "COLUMN"), help="default: the strongest")
    sub.add_argument("-o", "--out", type=Path, default=Path("project.png"))
    analyses(sub)

    sub = command("occlude", run_occlude, "cover an image piece by piece and map the response")
    sub.add_argument("image")
    sub.add_argument("--target", help="a class by name, number or WordNet id (default: the predicted one)")
    sub.add_argument("--size", type=int, default=32, help="side of the occluder in pixels")
    sub.add_argument("--stride", type=int, default=8)
    sub.add_argument("-o", "--out", type=Path, default=Path("occlude.png"))
    analyses(sub)

    sub = command("explain", run_explain, "map what in an image speaks for a class")
    sub.add_argument("image")
    sub.add_argument("--method", default="grad_cam", choices=METHODS)
    sub.add_argument("--target", help="a class by name, number or WordNet id (default: the predicted one)")
    sub.add_argument("-o", "--out", type=Path, default=Path("explain.png"))
    analyses(sub)

    sub = command("video", run_video, "map every frame of a moving picture, beside it, as a GIF")
    sub.add_argument("frames", help="an animated GIF, or a folder of images")
    sub.add_argument("--method", default="grad_cam", choices=(*METHODS, PROJECTION), help=f"{PROJECTION}: of one channel")
    sub.add_argument("--target", help="a class by name, number or WordNet id (default: the most probable over the frames)")
    sub.add_argument("--layer", help=f"of the {PROJECTION} (default conv5)")
    sub.add_argument("--channel", type=int, help=f"of the {PROJECTION} (default: the strongest over the frames)")
    sub.add_argument("-o", "--out", type=Path, default=Path("video.gif"))
    analyses(sub)
    return parser


def run_describe(options: argparse.Namespace) -> None:
    model = load(options.model) if options.model else ARCHITECTURES[options.arch]()
    rows = [row for row in describe(model) if not isinstance(model.get_submodule(row.name), nn.Flatten)]
    print(f"{'layer':<9}{'operation':<36}{'output':>15}{'parameters':>13}{'multiply-adds':>16}")
    for row in rows:
        shape = " x ".join(map(str, (*row.shape[1:], row.shape[0])))
        counts = [f"{count:,}" if count else "" for count in (row.parameters, row.macs)]
        print(f"{row.name:<9}{row.operation:<36}{shape:>15}{counts[0]:>13}{counts[1]:>16}".rstrip())
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs for row in rows)
    print(f"{'total':<60}{parameters:>13,}{macs:>16,}")
    print(f"{parameters / 1e6:.1f} M parameters, {macs / 1e6:,.0f} M multiply-adds a forward pass")


def run_train(options: argparse.Namespace) -> None:
    config = load_config(options.config, options.set)
    config = replace(
        config,
        data=replace(
            config.data,
            path=options.data or config.data.path,
            skip_unreadable=options.skip_unreadable or config.data.skip_unreadable,
        ),
    )
    if config.data.kind == "folders" and not config.data.path:
        raise UserError("no images: give --data PATH, a tree with train/<class>/ and val/<class>/")
    out = options.out or Path("runs") / config.name

    @functools.cache
    def load_images(split: str, side: int) -> Images:
        if config.data.kind == "scenes":
            count, seed = (config.data.scenes, 0) if split == "train" else (500, 1)
            return load_scenes(count, seed=seed, size=min(config.model.size, side), side=side)
        if config.data.kind == "digits":
            root, part = config.data.path or None, "train" if split == "train" else "test"
            return load_digits(part, root, side=side, size=config.model.size, download=config.data.download)
        root, size = Path(config.data.path) / split, min(config.model.size, side)  # a stage may be below the network's own
        names = load_labels(config.distill.labels).names if config.distill.labels and split == "train" else None
        skip = config.data.skip_unreadable
        images = load_folder(root, side=side, size=size, skip_unreadable=skip, names=names, progress=progress_bar)
        if images.skipped:
            print(f"left out {len(images.skipped)} unreadable files, such as {images.skipped[0]}", file=sys.stderr)
        return images

    if options.dry_run:
        with join(options.device) as (team, device):
            lines = plan_run(config, device, team, options.init)
        print("\n".join(lines if team.leads else []))
        return

    if config.data.kind == "folders":  # before hours of decoding
        check_classes(*(scan(Path(config.data.path) / split)[0] for split in ("train", "val")))
    bar: tqdm | None = None

    def report(status: Status) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=status.steps, initial=status.step - 1, unit="step", dynamic_ncols=True)
        bar.set_description(f"epoch {status.epoch}/{status.epochs}", refresh=False)
        bar.set_postfix_str(
            f"{status.images_per_second:.0f} images/s, loss {status.loss:.3f}, accuracy {100 * status.accuracy:.1f} %",
            refresh=False,
        )
        bar.update(status.step - bar.n)

    with join(options.device) as (team, device):
        try:
            train(
                config, load_images, out, resume=options.resume, init=options.init, device=device, team=team,
                report=report if team.leads else lambda status: None,
            )  # fmt: skip
        finally:
            if bar is not None:
                bar.close()
        if team.leads:
            print(f"wrote {out / 'model.safetensors'}; the log is {out / 'log.jsonl'}")


def run_eval(options: argparse.Namespace) -> None:
    with join(options.device) as (team, device):
        model = _load(options.model, device)
        images = _images(options.data, model, options.skip_unreadable)
        bar = progress_bar if team.leads else silent
        scores = evaluate(model, images, views=options.views, precision=options.precision, team=team, progress=bar)
    if not team.leads:
        return
    crops = "one centre crop" if scores.views == 1 else "ten crops"
    print(f"{scores.n} images, {crops} of {model.size} pixels, {options.precision}:")
    print(f"top-1 error {scores.top1:.2f} %, top-5 error {scores.top5:.2f} %")
    print(f"top-1 accuracy {100 - scores.top1:.2f} %, top-5 accuracy {100 - scores.top5:.2f} %")


def run_top(options: argparse.Namespace) -> None:
    if options.out.suffix != ".safetensors":
        _check_out(options.out)
    with join(options.device) as (team, device):
        model = _load(options.model, device)
        skip, bar = options.skip_unreadable, progress_bar if team.leads else silent
        images = _images(options.data, model, skip) if options.data else load_samples(model.size, _side(model))
        if options.k < 1:
            raise UserError(f"-k must be at least 1, got {options.k}")
        _check_channel(options.layer, options.channel, _channels(model, options.layer))
        found = top_activations(model, images, (options.layer,), options.k, groups=images.groups, team=team, progress=bar)
    if not team.leads:
        return
    if options.out.suffix == ".safetensors":
        found.save(options.out)
        print(f"wrote {options.out}: the top {options.k} of {len(found[options.layer].value)} channels of {options.layer}")
        return
    top = found[options.layer]
    index = top.index[options.channel]
    index = index[index >= 0]
    x = images.batch(index).to(device_of(model))
    channel = torch.full((len(index),), options.channel)
    position, activation = (table[options.channel, : len(index)] for table in (top.position, top.value))
    p = project(model, x, options.layer, channel, position, activation=activation, crop=True)
    patches = cut(x, p.corner, p.pixels.shape[-1])
    figure = plot.new_figure(8, 4.3)
    left, right = figure.subplots(1, 2)
    columns = min(3, len(index))
    plot.show(left, plot.mosaic(plot.projection_image(p.pixels.cpu()), columns, gap=2), "projections")
    plot.show(right, plot.mosaic(plot.photograph(patches.cpu()), columns, gap=2), "image patches")
    figure.suptitle(f"{options.layer}, channel {options.channel}: its strongest activations in {found.images} images")
    _write(figure, options.out)
    for rank, (i, value) in enumerate(zip(index.tolist(), top.value[options.channel].tolist(), strict=False), 1):
        print(f"{rank}. {value:.3f}  {images.names[i]}")


def run_project(options: argparse.Namespace) -> None:
    _check_out(options.out, options.image)
    model = _model(options)
    x = _photograph(options.image, model)
    maps = trace(model, x, until=options.layer)[options.layer]
    if maps.ndim == 2:
        maps = maps[:, :, None, None]
    if options.channel is None:
        options.channel = int(maps[0].amax((1, 2)).argmax())
    _check_channel(options.layer, options.channel, maps.shape[1])
    if options.position and not all(0 <= p < n for p, n in zip(options.position, maps.shape[2:], strict=True)):
        raise UserError(
            f"{options.layer} has rows 0 to {maps.shape[2] - 1} and columns 0 to {maps.shape[3] - 1}, got {options.position}"
        )
    position = tuple(options.position) if options.position else None
    whole = project(model, x, options.layer, options.channel, position)
    patch = project(model, x, options.layer, options.channel, position, crop=True)
    (row, column), value = whole.position[0].tolist(), float(whole.activation[0])
    title = f"{options.layer}, channel {options.channel}, row {row}, column {column}: activation {value:.3f}"
    box = whole.box[0].tolist()
    _write(plot.projection_figure(x.cpu(), patch.pixels.cpu(), whole.pixels.cpu(), box, title), options.out)
    print(f"{title}; receptive field {box} (top, left, bottom, right)")


def run_occlude(options: argparse.Namespace) -> None:
    _check_out(options.out, options.image)
    model = _model(options)
    x = _photograph(options.image, model)
    try:
        target = None if options.target is None else model.class_index(options.target)
        o = occlude(model, x, target, size=options.size, stride=options.stride, progress=progress_bar)
    except ValueError as error:
        raise UserError(str(error)) from None
    name = model.classes[int(o.target)]
    maps = {"probability": o.probability, "logit": o.logit}
    if o.activation is not None and o.channel is not None:
        maps = {f"strongest last-layer map ({int(o.channel)})": o.activation} | maps
    arrays = {title: values.cpu().numpy() for title, values in maps.items()}
    title = f"{name}: probability {float(o.baseline.probability):.3f}, logit {float(o.baseline.logit):.2f} without occluder"
    _write(
        plot.occlusion_figure(x.cpu(), arrays, o.label.cpu().numpy(), model.classes, options.size, options.stride, title),
        options.out,
    )
    print(f"{title}; the most harmful occluder lowers the logit by {float(o.baseline.logit - o.logit.min()):.2f}")
    predicted = model.classes[int(o.baseline.label)]
    if predicted != name:
        print(f"the network takes the image for: {predicted}")


def run_explain(options: argparse.Namespace) -> None:
    _check_out(options.out, options.image)
    model = _model(options)
    x = _photograph(options.image, model)
    try:
        target = None if options.target is None else model.class_index(options.target)
        a = explain(model, x, options.method, target)
    except ValueError as error:
        raise UserError(str(error)) from None
    logits = model(x)[0].detach()
    chosen, predicted = int(a.target), int(logits.argmax())
    probability, (state,) = float(logits.softmax(0)[chosen]), a.state
    title = f"{options.method} for {model.classes[chosen]}: probability {probability:.3f}, logit {float(logits[chosen]):.2f}"
    raw = f"raw values from {float(a.map.min()):.3g} to {float(a.map.max()):.3g}"
    raw += "" if state == "ok" else f"; the map is {state}"
    _write(plot.attribution_figure(x.cpu(), a.map.cpu(), title, raw), options.out)
    print(f"{title}; {raw}")
    if predicted != chosen:
        print(f"the network takes the image for: {model.classes[predicted]}")
    if state != "ok":
        print(f"zfnet explain: the map is {state}: it says nothing of this image", file=sys.stderr)


def run_video(options: argparse.Namespace) -> None:
    if options.out.suffix.lower() != ".gif":
        raise UserError(f"-o {options.out} must end in .gif")
    if options.out.resolve() == Path(options.frames).resolve():
        raise UserError(f"-o {options.out} would overwrite the frames")
    projecting = options.method == PROJECTION
    wrong = ("target",) if projecting else ("layer", "channel")
    for name in wrong:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} has no meaning with --method {options.method}")
    model = _model(options)
    frames = load_frames(options.frames, model.size, progress=progress_bar)
    x, device = frames.x, device_of(model)
    jobs = progress_bar(x.split(1), total=len(x), desc=options.method)
    if projecting:
        shown, title = _projections(model, x, options, device, jobs)
    else:
        try:
            target = None if options.target is None else model.class_index(options.target)
            if target is None:
                probability = torch.cat([model(part.to(device)).softmax(1).detach().cpu() for part in x.split(16)])
                target = int(probability.mean(0).argmax())
            maps, states = [], []
            for part in jobs:
                a = explain(model, part.to(device), options.method, target)
                maps.append(a.map.cpu())
                states += a.state
        except ValueError as error:
            raise UserError(str(error)) from None
        mute = [(i, state) for i, state in enumerate(states, 1) if state != "ok"]
        if mute:
            which = f"the first, of frame {mute[0][0]}, is {mute[0][1]}"
            print(f"zfnet video: {len(mute)} of {len(x)} maps say nothing: {which}", file=sys.stderr)
        shown, (top, *_) = plot.attribution_image(torch.cat(maps), together=True)
        title = f"{options.method} for {model.classes[target]}, full colour at {top:.3g} in every frame"
    write_gif(plot.moving_maps(x, shown), options.out, frames.milliseconds)
    print(f"wrote {options.out}: {len(x)} frames, {title}")


def _projections(model: Network, x: torch.Tensor, options: argparse.Namespace, device, jobs) -> tuple[np.ndarray, str]:
    """Every frame's projection of one channel from its strongest position: (N, H, W, 3), and what it is."""
    layer = options.layer or "conv5"
    if options.channel is None:
        strongest = [
            trace(model, part.to(device), until=layer)[layer][:, :, None].flatten(2).amax(2).cpu() for part in x.split(16)
        ]
        options.channel = int(torch.cat(strongest).mean(0).argmax())
    _check_channel(layer, options.channel, _channels(model, layer))
    pixels = torch.cat([project(model, part.to(device), layer, options.channel).pixels.cpu() for part in jobs])
    shown = plot.projection_image(pixels.permute(1, 2, 0, 3).flatten(2)[None])  # laid side by side: one contrast for all
    side = x.shape[-1]
    apart = shown[0].reshape(side, len(x), side, 3).transpose(1, 0, 2, 3)
    return apart, f"projections of {layer}, channel {options.channel}"


def _model(options: argparse.Namespace) -> Network:
    with join(options.device) as (_, device):
        return _load(options.model, device)


def _load(name: str, device: torch.device) -> Network:
    model = load(name).to(device)
    if model.options["in_channels"] != 3:
        raise UserError(f"{name} takes images of {model.options['in_channels']} channels, and this command shows it those of 3")
    return model


def _side(model: Network) -> int:
    """The side at which images are kept for a network: 256 for 224."""
    return round(model.size * 256 / 224)


def _images(path: Path, model: Network, skip_unreadable: bool) -> Images:
    root = path / "val" if (path / "val").is_dir() else path
    return load_folder(root, side=_side(model), size=model.size, skip_unreadable=skip_unreadable, progress=progress_bar)


def _photograph(path: str, model: Network) -> torch.Tensor:
    return preprocess(path, model.size).to(device_of(model))


def _channels(model: Network, layer: str) -> int:
    """How many channels a layer has. Raises UnknownLayer."""
    x = torch.zeros(1, 3, model.size, model.size, device=device_of(model))
    return trace(model, x, until=layer)[layer].shape[1]


def _check_out(out: Path, image: str | None = None) -> None:
    """Refuse an output that is the input, a folder, or of a kind that cannot be drawn, before anything is computed."""
    if image is not None and out.resolve() == Path(image).resolve():
        raise UserError(f"-o {out} would overwrite the image")
    if out.is_dir():
        raise UserError(f"-o {out} is a folder; name a file, such as {out / 'out.png'}")
    if out.suffix.lower() not in ("", ".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise UserError(f"-o {out} cannot be written as a picture; use .png, .jpg, .pdf or .svg")


def _check_channel(layer: str, channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise UserError(f"{layer} has channels 0 to {channels - 1}, got {channel}")


def _write(figure, path: Path) -> None:
    try:
        write_figure(figure, path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
