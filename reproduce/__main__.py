"""python -m reproduce list | run ID... | all | gallery | notebook | replication | atlas | look IMAGE"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import traceback
from pathlib import Path

from reproduce import notebook
from reproduce.parser import build_parser
from reproduce.site import gallery

OK, FAILED, WRONG, NOT_RUN, INTERRUPTED = 0, 1, 2, 3, 130  # exit statuses


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    if options.command == "gallery":
        for path in gallery.write(options.out):
            print(f"wrote {path}")
        return OK
    if options.command == "notebook":
        print(f"wrote {notebook.write(options.out)}")
        return OK

    import torch  # here and below: it takes seconds, and the gallery needs none

    from reproduce.core.run import USER_ERRORS
    from zfnet.memory import keep_freed_memory

    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = (
        False  # float32 is float32: TF32 moves switches between near-equal cells
    )
    try:
        return COMMANDS[options.command](options)
    except (*USER_ERRORS, OSError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(
            "reproduce: interrupted; the same command continues, and finished figures are kept",
            file=sys.stderr,
        )
        return INTERRUPTED


def list_figures(options: argparse.Namespace) -> int:
    """Print every figure: id, title, what it needs, whether it trains, and the state of its committed records."""
    from reproduce.core.cache import record_status
    from reproduce.core.context import Context
    from reproduce.core.discovery import discover, script_folder
    from reproduce.core.figure import DEFAULT_MODEL
    from reproduce.core.record import read_record
    from reproduce.core.requirements import needs
    from reproduce.core.run import available_inputs

    context = Context(DEFAULT_MODEL, options.data, datasets=options.datasets)
    for name, script in discover().items():
        figure = script.FIGURE
        corpora = [figure.corpus or gallery.COMMITTED[0]]
        corpora += [
            c
            for c in gallery.COMMITTED
            if c not in corpora and (options.out / c / name / "result.json").exists()
        ]
        notes = [f"needs {', '.join(needs(figure))}"] * bool(needs(figure)) + [
            "trains"
        ] * figure.trains
        notes += ["only by its id"] * figure.manual
        print(f"{name:<21}{figure.title}" + (f" ({'; '.join(notes)})" if notes else ""))
        for corpus in corpora:
            record = read_record(options.out / corpus / name)
            has_data = options.datasets is not None if figure.corpus else context.corpus == corpus
            inputs = available_inputs(context, figure, corpus, hash_data=has_data)
            print(
                f"{'':<21}{corpus}: {record_status(figure, script_folder(script), record, inputs)}"
            )
    return OK


def write_replication(options: argparse.Namespace) -> int:
    """Write the table of docs/replication.md."""
    from reproduce import replication

    print(f"wrote {replication.write(options.out)}")
    return OK


def make_figures(options: argparse.Namespace) -> int:
    """Check what was asked for, then compute the figures, or with --dry-run show what would be computed."""
    from reproduce.core.discovery import discover
    from reproduce.core.requirements import refuse_unused

    scripts = discover()
    unknown = [name for name in getattr(options, "ids", []) if name not in scripts]
    if unknown:
        print(
            f"reproduce: no figure {', '.join(unknown)}; there are {', '.join(scripts)}",
            file=sys.stderr,
        )
        return WRONG
    context = _context(options)
    if options.command == "run":
        chosen, names = list(dict.fromkeys(options.ids)), ""
    else:
        chosen, names = everyday(scripts, context), "the figures of `all`, which train nothing"
    arguments = {
        name: getattr(options, name) for name in ("data", "datasets", "model", "weights", "scale")
    }
    refusal = refuse_unused(arguments, (scripts[name].FIGURE for name in chosen), names)
    if refusal:
        print(f"reproduce: {refusal}", file=sys.stderr)
        return WRONG
    context.check()
    return (
        dry_run(chosen, scripts, context, options)
        if options.dry_run
        else make(chosen, scripts, context, options)
    )


def everyday(scripts: dict, context) -> list[str]:
    """The figures of `all`: those that are made without being named, and Figure 4 where the model's run kept snapshots."""
    snapshots = len(context.snapshots) >= 3 and context.data is not None
    return [
        name for name, script in scripts.items()
        if not script.FIGURE.manual or (snapshots and "snapshots" in script.FIGURE.inputs)
    ]  # fmt: skip


def dry_run(chosen: list[str], scripts: dict, context, options: argparse.Namespace) -> int:
    """Print for each figure what a run would do, from what, where to, and for how long; compute nothing."""
    from reproduce.core.requirements import forecast
    from reproduce.site.text import duration

    forecasts = [forecast(scripts[name].FIGURE, context, options.out) for name in chosen]
    print(f"{'figure':<21}{'would':<9}{'scale':<9}{'about':>9}  {'from':<26}{'data':<34}folder")
    for f in forecasts:
        about = "" if f.reason else duration(f.seconds)
        place = f"{f.folder}{f' (has a result: {f.record.verdict})' if f.record else ''}"
        print(
            f"{f.figure.id:<21}{f.action:<9}{f.scale:<9}{about:>9}  {f.source:<26}{f.data:<34}{f.reason or place}"
        )
    able = [f for f in forecasts if not f.reason]
    total = duration(sum(f.seconds for f in able))
    print(
        f"{len(able)} of {len(forecasts)} figures would be made, in about {total} without a cache. Nothing was computed."
    )
    return OK


def make(chosen: list[str], scripts: dict, context, options: argparse.Namespace) -> int:
    """Make the figures one after the other, with a progress bar, then the page and the closing table.

    A figure that fails is named in the table, its traceback printed, and the others are made; the exit status is then 1.
    It is 3 where a figure that was asked for by name could not be run.
    """
    from tqdm import tqdm

    from reproduce.core.run import USER_ERRORS, Outcome, run

    began = time.perf_counter()
    outcomes: list[Outcome] = []
    failed: list[str] = []
    with tqdm(chosen, unit="figure", dynamic_ncols=True, position=0) as bar:
        for name in bar:
            bar.set_description(name)
            try:
                outcomes.append(
                    run(scripts[name], context, options.out, options.force, options.allow_dirty)
                )
            except USER_ERRORS:
                raise  # wrong input, for all of them
            except Exception:
                bar.write(traceback.format_exc())
                failed.append(name)
    atlas_seconds = None
    if (
        options.command == "all" and options.data is None and options.model is None
    ):  # others on demand: they take minutes
        atlas_seconds = _sample_atlas(context, options.out, failed)
    pages = gallery.write(options.out, only={outcome.folder.parent.name for outcome in outcomes})
    _closing_table(outcomes, failed, scripts, atlas_seconds)
    page = f" Open {pages[0]}" if pages else ""
    print(f"{sum(o.ran for o in outcomes)} figures in {time.perf_counter() - began:.0f} s.{page}")
    skipped = options.command == "run" and not all(outcome.ran for outcome in outcomes)
    return FAILED if failed else NOT_RUN if skipped else OK


def _sample_atlas(context, out: Path, failed: list[str]) -> float | None:
    """Write the atlas of the sample photographs; its seconds, or None where it failed."""
    from reproduce.core.figure import SAMPLES
    from reproduce.core.run import USER_ERRORS
    from reproduce.site import atlas

    began = time.perf_counter()
    try:
        atlas.write_sample(context, out / SAMPLES / "atlas")
    except USER_ERRORS:
        raise
    except Exception:
        print(traceback.format_exc(), file=sys.stderr)
        failed.append("atlas")
        return None
    return time.perf_counter() - began


def _closing_table(
    outcomes: list, failed: list[str], scripts: dict, atlas_seconds: float | None
) -> None:
    from reproduce.core.figure import SAMPLES
    from reproduce.site import atlas

    print(
        f"\n{'figure':<21}{'scale':<10}{'verdict':<17}{'seconds':>8}{'budget':>8}  written to, or why not"
    )
    for outcome in outcomes:
        record, budget = outcome.record, scripts[outcome.record.id].FIGURE.time_budget
        spent = "cached" if outcome.cached else f"{outcome.seconds:.1f}"
        verdict = record.verdict if outcome.ran else "not run"
        kept = f" Kept: {outcome.folder}." if outcome.reason and record.verdict != "not run" else ""
        print(
            f"{record.id:<21}{record.scale:<10}{verdict:<17}{spent:>8}{budget:>8.0f}  {outcome.reason or outcome.folder}{kept}"
        )
    if atlas_seconds is not None:
        print(f"{'atlas':<21}{SAMPLES:<10}{'':<17}{atlas_seconds:>8.1f}{atlas.TIME_BUDGET:>8.0f}")
    for name in failed:
        print(f"{name:<21}failed: see above")


def write_atlas(options: argparse.Namespace) -> int:
    """Write an atlas, and the canonical images that were asked for."""
    from reproduce.site import atlas
    from reproduce.site.atlas import canonical

    began, context = time.perf_counter(), _context(options)
    context.check()
    canonical.resolve(
        context, options.canonical
    )  # a wrong name is an error now, not after the pass
    page = atlas.write(context, options.out)
    if options.canonical:
        canonical.add(context, options.out, options.canonical)
    return _wrote(page, began)


def write_look(options: argparse.Namespace) -> int:
    """Write the page of one image."""
    from reproduce.site.atlas.look import look

    began, context = time.perf_counter(), _context(options)
    return _wrote(
        look(
            context.model,
            context.network_name,
            options.image,
            options.out,
            options.atlas,
            context.progress,
        ),
        began,
    )


def _context(options: argparse.Namespace):
    """The inputs that the options name."""
    from tqdm import tqdm

    from reproduce.core.context import Context
    from reproduce.core.figure import DEFAULT_MODEL
    from zfnet.training.distributed import join

    with join(options.device) as (_, device):
        progress = functools.partial(tqdm, dynamic_ncols=True)
        if options.command in ("run", "all"):
            progress = functools.partial(
                progress, leave=False, position=1
            )  # below the bar of the figures
        return Context(
            options.model or DEFAULT_MODEL, getattr(options, "data", None), str(device), progress,
            getattr(options, "datasets", None), options.weights, getattr(options, "scale", None),
        )  # fmt: skip


def _wrote(page: Path, began: float) -> int:
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB in {time.perf_counter() - began:.0f} s. Open {page}")
    return OK


COMMANDS = {
    "list": list_figures, "replication": write_replication, "run": make_figures, "all": make_figures, "atlas": write_atlas,
    "look": write_look,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
