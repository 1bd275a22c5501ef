"""python -m reproduce list | run ID... | all | gallery | notebook | atlas | look IMAGE"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import traceback
from pathlib import Path

from reproduce import gallery, notebook

ATLAS = gallery.FIGURES / "samples" / "atlas"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reproduce", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("list", help="all figures, and which recorded results are current")
    sub.add_argument("--out", type=Path, default=gallery.FIGURES, help="the folder of the recorded results")
    _takes_data(sub)
    page = commands.add_parser("gallery", help="write the pages and RESULTS.md from the recorded results")
    page.add_argument("--out", type=Path, default=gallery.FIGURES)
    course = commands.add_parser("notebook", help="write the lectures' course as a notebook")
    course.add_argument("--out", type=Path, default=notebook.COURSE.with_name("course.ipynb"))
    for name, text in (("run", "make some figures"), ("all", "make every figure that needs no training")):
        sub = commands.add_parser(name, help=text)
        if name == "run":
            sub.add_argument("ids", nargs="+", metavar="ID")
        _takes_data(sub)
        _asks_for_a_network(sub)
        sub.add_argument("--out", type=Path, default=gallery.FIGURES)
        sub.add_argument("--force", action="store_true", help="make them again, whatever is there")
        sub.add_argument(
            "--allow-dirty", action="store_true", help="write committed records although the sources have uncommitted changes"
        )
    sub = commands.add_parser("atlas", help="write a page for every feature and class of a network, or go on with it")
    sub.add_argument("--data", help="an ImageNet-like tree, or imagenette; by default the sample photographs")
    _asks_for_a_network(sub)
    sub.add_argument("-o", "--out", type=Path, default=ATLAS)
    sub.add_argument(
        "--canonical",
        nargs="+",
        default=[],
        metavar="NAME",
        help="canonical images of classes, or of features as conv5/17",
    )
    sub = commands.add_parser("look", help="write such a page for one image")
    sub.add_argument("image", type=Path)
    _asks_for_a_network(sub)
    sub.add_argument("--atlas", type=Path, default=ATLAS, help="where neighbours are taken from")
    sub.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "gallery":
        for path in gallery.write(options.out):
            print(f"wrote {path}")
        return 0

    if options.command == "notebook":
        print(f"wrote {notebook.write(options.out)}")
        return 0

    import torch  # here and below: it takes seconds, and the gallery needs none

    from reproduce.figure import WRONG_INPUT, discover
    from zfnet.memory import keep_freed

    keep_freed()
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: TF32 moves switches between near-equal cells
    if options.command in ("atlas", "look"):
        try:
            return show(options)
        except (*WRONG_INPUT, OSError) as error:
            print(f"reproduce: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("reproduce: interrupted; the same command goes on", file=sys.stderr)
            return 130
    scripts = discover()
    if options.command == "list":
        try:
            return list_figures(scripts, options)
        except (*WRONG_INPUT, OSError) as error:
            print(f"reproduce: {error}", file=sys.stderr)
            return 2
    everyday = [name for name, script in scripts.items() if not script.FIGURE.alone]
    chosen = everyday if options.command == "all" else options.ids
    unknown = [name for name in chosen if name not in scripts]
    if unknown:
        print(f"reproduce: no figure {', '.join(unknown)}; there are {', '.join(scripts)}", file=sys.stderr)
        return 2
    try:
        return make(chosen, scripts, options)
    except (*WRONG_INPUT, OSError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: interrupted; finished figures are kept", file=sys.stderr)
        return 130


def _asks_for_a_network(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", default="imagenet65k", help="a bundled network or a checkpoint")
    sub.add_argument("--device", default="auto", help="cuda or cpu; by default the first that is there")


def _takes_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", help="an ImageNet-like tree, or imagenette")
    sub.add_argument("--datasets", help="the folder where torchvision keeps Caltech-101, Caltech-256, VOC 2012 and MNIST")


def list_figures(scripts: dict, options: argparse.Namespace) -> int:
    """Print each figure with the state of its committed records: current, stale and why, or missing."""
    from reproduce.figure import Context, known_inputs, script_folder
    from reproduce.keys import status
    from zfnet.record import read_record

    context = Context("imagenet65k", options.data, datasets=options.datasets)
    for name, script in scripts.items():
        corpora = [script.FIGURE.corpus or gallery.COMMITTED[0]]
        corpora += [c for c in gallery.COMMITTED if c not in corpora and (options.out / c / name / "result.json").exists()]
        by_id = " (only by its id)" if script.FIGURE.alone else ""
        print(f"{name:<21}{script.FIGURE.title}{by_id}")
        for corpus in corpora:
            record = read_record(options.out / corpus / name)
            here = options.datasets is not None if script.FIGURE.corpus else context.corpus == corpus
            inputs = known_inputs(context, script.FIGURE, corpus, hash_data=here)
            print(f"{'':<21}{corpus}: {status(script.FIGURE, script_folder(script), record, inputs)}")
    return 0


def _device(options: argparse.Namespace) -> str:
    from zfnet.parallel import join

    with join(options.device) as (_, device):
        return str(device)


def show(options: argparse.Namespace) -> int:
    """Write an atlas, or the page of one image."""
    from tqdm import tqdm

    import zfnet
    from reproduce import atlas
    from reproduce.atlas import canonical
    from reproduce.atlas.look import look
    from reproduce.figure import Context

    began = time.perf_counter()
    device = _device(options)
    progress = functools.partial(tqdm, dynamic_ncols=True)
    if options.command == "atlas":
        context = Context(options.model, options.data, device, progress)
        canonical.resolve(context, options.canonical)  # a wrong name is told now, not after the pass
        page = atlas.write(context, options.out)
        if options.canonical:
            canonical.add(context, options.out, options.canonical)
    else:
        network = zfnet.load(options.model).to(device)
        page = look(network, Path(options.model).stem, options.image, options.out, options.atlas, progress)
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB in {time.perf_counter() - began:.0f} s. Open {page}")
    return 0


def make(chosen: list[str], scripts: dict, options: argparse.Namespace) -> int:
    """Make the figures one after the other, with a progress bar, then the page and the closing table.

    A figure that fails is named in the table, its traceback printed, and the others are made; the exit status is then 1.
    """
    from tqdm import tqdm

    from reproduce import atlas
    from reproduce.figure import SAMPLES, WRONG_INPUT, Context, Outcome, run

    began = time.perf_counter()
    device = _device(options)
    inner = functools.partial(tqdm, leave=False, dynamic_ncols=True, position=1)
    context = Context(options.model, options.data, device, inner, options.datasets)
    outcomes: list[Outcome] = []
    failed: list[str] = []
    with tqdm(chosen, unit="figure", dynamic_ncols=True, position=0) as bar:
        for name in bar:
            bar.set_description(name)
            try:
                outcomes.append(run(scripts[name], context, options.out, options.force, options.allow_dirty))
            except WRONG_INPUT:
                raise  # wrong input, for all of them
            except Exception:
                bar.write(traceback.format_exc())
                failed.append(name)
    atlas_took = None
    if options.command == "all" and options.data is None:  # of other images on demand: ten thousand take minutes
        try:
            start = time.perf_counter()
            atlas.write_sample(context, options.out / SAMPLES / "atlas")
            atlas_took = time.perf_counter() - start
        except WRONG_INPUT:
            raise
        except Exception:
            print(traceback.format_exc(), file=sys.stderr)
            failed.append("atlas")
    pages = gallery.write(options.out, only={outcome.record.inputs["corpus"] for outcome in outcomes})
    print(f"\n{'figure':<21}{'scale':<10}{'verdict':<17}{'seconds':>8}{'budget':>8}")
    for outcome in outcomes:
        record, budget = outcome.record, scripts[outcome.record.id].FIGURE.budget
        spent = "cached" if outcome.cached else f"{outcome.seconds:.1f}"
        print(f"{record.id:<21}{record.scale:<10}{record.verdict:<17}{spent:>8}{budget:>8.0f}")
    if atlas_took is not None:
        print(f"{'atlas':<21}{SAMPLES:<10}{'':<17}{atlas_took:>8.1f}{atlas.BUDGET:>8.0f}")
    for name in failed:
        print(f"{name:<21}failed: see above")
    page = f" Open {pages[0]}" if pages else ""
    print(f"{len(outcomes)} figures in {time.perf_counter() - began:.0f} s.{page}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
