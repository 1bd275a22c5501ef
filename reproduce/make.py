"""The commands `run` and `all`: check the options, make figures one by one, and report."""

from __future__ import annotations

import argparse
import difflib
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from reproduce import dry_run
from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.figure import SAMPLES
from reproduce.core.requirements import unused_option
from reproduce.core.run import USER_ERRORS, Outcome, run
from reproduce.site import atlas, gallery
from reproduce.status import FAILED, NOT_RUN, OK, WRONG

ROW = "{:<21}{:<10}{:<17}{:>8}{:>8}  {}"


def make_figures(options: argparse.Namespace, context: Context) -> int:
    """Make the requested figures, or with --dry-run show what would be made."""
    scripts = discover()
    if options.command == "run":
        ids, description = list(dict.fromkeys(options.ids)), ""
    else:
        ids, description = everyday(scripts), "the figures of `all`, which train nothing"
    names = ("data", "datasets", "model", "weights", "scale")
    values = {name: getattr(options, name) for name in names}
    message = unknown_ids(ids, list(scripts)) or unused_option(
        values, (scripts[name].FIGURE for name in ids), description
    )
    if message:
        print(f"reproduce: {message}", file=sys.stderr)
        return WRONG
    context.check(dry_run=options.dry_run)
    if options.dry_run:
        forecasts = [dry_run.forecast(scripts[name].FIGURE, context, options.out) for name in ids]
        dry_run.show(forecasts)
        return _status(options, failed=False, skipped=any(f.reason for f in forecasts))
    return _make({name: scripts[name] for name in ids}, context, options)


def unknown_ids(ids: list[str], known: list[str]) -> str:
    """A message about ids that no figure has, with the nearest ones; "" where all are known."""
    unknown = [name for name in ids if name not in known]
    if not unknown:
        return ""
    near = {near for name in unknown for near in difflib.get_close_matches(name, known, n=1)}
    message = f"no figure {', '.join(unknown)}"
    message += f"; did you mean {' or '.join(sorted(near))}?" if near else ";"
    return f"{message} available: {', '.join(known)}"


def everyday(scripts: dict[str, ModuleType]) -> list[str]:
    """The figures of `all`: those that are not manual."""
    return [name for name, script in scripts.items() if not script.FIGURE.manual]


def _make(scripts: dict[str, ModuleType], context: Context, options: argparse.Namespace) -> int:
    """Make figures with a progress bar, then the atlas, the pages and the closing table.

    A figure that fails is named in the table, its traceback is printed, and the others are made.
    """
    start = time.perf_counter()
    outcomes: list[Outcome] = []
    failed: list[str] = []
    with tqdm(scripts.items(), unit="figure", dynamic_ncols=True, position=0) as bar:
        for name, script in bar:
            bar.set_description(name)
            try:
                outcomes.append(
                    run(script, context, options.out, options.force, options.allow_dirty)
                )
            except USER_ERRORS:  # the same for all figures
                raise
            except Exception:
                bar.write(traceback.format_exc())
                failed.append(name)
    atlas_seconds = None
    # Other atlases take minutes, and have a command of their own.
    if options.command == "all" and options.data is None and options.model is None:
        atlas_seconds = _sample_atlas(context, options.out, failed)
    pages = gallery.write(options.out, only={outcome.folder.parent.name for outcome in outcomes})
    _closing_table(outcomes, failed, scripts, atlas_seconds)
    page = f" Open {pages[0]}" if pages else ""
    print(f"{sum(o.ran for o in outcomes)} figures in {time.perf_counter() - start:.0f} s.{page}")
    return _status(options, bool(failed), skipped=not all(outcome.ran for outcome in outcomes))


def _status(options: argparse.Namespace, failed: bool, skipped: bool) -> int:
    """The exit status: NOT_RUN only for figures that were requested by id."""
    return FAILED if failed else NOT_RUN if skipped and options.command == "run" else OK


def _sample_atlas(context: Context, out: Path, failed: list[str]) -> float | None:
    """Write the atlas of the sample photographs; returns its seconds, or None if it failed."""
    start = time.perf_counter()
    try:
        atlas.write_sample(context, out / SAMPLES / "atlas")
    except USER_ERRORS:
        raise
    except Exception:
        print(traceback.format_exc(), file=sys.stderr)
        failed.append("atlas")
        return None
    return time.perf_counter() - start


def _closing_table(
    outcomes: list[Outcome],
    failed: list[str],
    scripts: dict[str, ModuleType],
    atlas_seconds: float | None,
) -> None:
    print(
        "\n" + ROW.format("figure", "scale", "verdict", "seconds", "budget", "result, or why not")
    )
    for outcome in outcomes:
        record = outcome.record
        has_older_record = outcome.reason and record.verdict != "not run"
        older = f" Kept: {outcome.folder}." if has_older_record else ""
        print(
            ROW.format(
                record.id,
                record.scale,
                record.verdict if outcome.ran else "not run",
                "cached" if outcome.cached else f"{outcome.seconds:.1f}",
                f"{scripts[record.id].FIGURE.time_budget:.0f}",
                f"{outcome.reason or outcome.folder}{older}",
            )
        )
    if atlas_seconds is not None:
        budget = f"{atlas.TIME_BUDGET:.0f}"
        print(ROW.format("atlas", SAMPLES, "", f"{atlas_seconds:.1f}", budget, "").rstrip())
    for name in failed:
        print(f"{name:<21}failed: see above")
