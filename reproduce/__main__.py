"""The commands of `python -m reproduce`: list, run, all, atlas, look, and the pages."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from reproduce import FIGURES, REPOSITORY
from reproduce.parser import ATLAS, build_parser
from reproduce.site import gallery
from reproduce.site.publish import write_site
from reproduce.status import INTERRUPTED, OK, WRONG

if TYPE_CHECKING:
    from reproduce.core.context import Context


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        status = _run_command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(
            "reproduce: interrupted; finished figures are kept, and the same command continues",
            file=sys.stderr,
        )
        return INTERRUPTED


def _run_command(options: argparse.Namespace) -> int:
    # `gallery` and `site` start without torch, whose import takes seconds.
    if options.command == "gallery":
        for path in gallery.write(options.out):
            print(f"wrote {path}")
        return OK
    if options.command == "site":
        print(f"wrote {write_site(options.out)}")
        return OK

    import torch

    from reproduce.core.run import USER_ERRORS
    from zfnet.cli.memory import keep_freed_memory

    keep_freed_memory()
    # TF32 rounds enough to move pooling switches between nearly equal cells.
    torch.backends.cudnn.allow_tf32 = False
    try:
        return COMMANDS[options.command](options)
    except USER_ERRORS as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return WRONG


def list_figures(options: argparse.Namespace) -> int:
    """Print each figure: id, title, what it needs, and the status of its committed records."""
    from reproduce.core.cache import record_status
    from reproduce.core.context import Context
    from reproduce.core.discovery import discover, script_folder
    from reproduce.core.figure import DEFAULT_MODEL
    from reproduce.core.record import read_record
    from reproduce.core.requirements import needs
    from reproduce.core.run import available_inputs
    from reproduce.lock import other_torch

    context = Context(DEFAULT_MODEL, options.data, datasets=options.datasets)
    for name, script in discover().items():
        figure = script.FIGURE
        notes = [f"needs {', '.join(needs(figure))}"] if needs(figure) else []
        notes += ["trains"] * figure.trains + ["only by its id"] * figure.manual
        needs_text = f" ({'; '.join(notes)})" if notes else ""
        print(f"{name:<21}{figure.title}{needs_text}")
        corpora = [figure.corpus or gallery.COMMITTED[0]]
        for corpus in gallery.COMMITTED:
            if corpus not in corpora and (options.out / corpus / name / "result.json").exists():
                corpora.append(corpus)
        for corpus in corpora:
            record = read_record(options.out / corpus / name)
            has_data = options.datasets is not None if figure.corpus else context.corpus == corpus
            inputs = available_inputs(context, figure, corpus, hash_data=has_data)
            status = record_status(figure, script_folder(script), record, inputs)
            note = other_torch(record) if record else ""
            print(f"{'':<21}{corpus}: {status}{'; ' * bool(note)}{note}")
    return OK


def make_figures(options: argparse.Namespace) -> int:
    """Make figures, or with --dry-run show what would be made."""
    from reproduce import make

    return make.make_figures(options, _context(options))


def write_replication(options: argparse.Namespace) -> int:
    """Write the tables of docs/replication.md."""
    from reproduce import replication

    print(f"wrote {replication.write(options.out)}")
    return OK


def write_atlas(options: argparse.Namespace) -> int:
    """Write an atlas, and the requested canonical images."""
    from reproduce.core.figure import SAMPLES
    from reproduce.site import atlas
    from reproduce.site.atlas import canonical
    from reproduce.site.atlas.layout import COMPACT, FULL

    start, context = time.perf_counter(), _context(options)
    context.check()
    canonical.resolve(context, options.canonical)  # raises for a wrong name before the long pass
    corpus = context.corpus if options.compact else SAMPLES
    out = options.out or FIGURES / corpus / "atlas"
    layout = COMPACT if options.compact else FULL
    page = atlas.write(context, out, layout=layout)
    if options.canonical:
        canonical.add(context, out, options.canonical)
    return _report(page, start)


def write_look(options: argparse.Namespace) -> int:
    """Write the page of one image."""
    from reproduce.site.atlas.look import look
    from zfnet.explorer.atlas import find_atlas

    start, context = time.perf_counter(), _context(options)
    model, name = context.model, context.network_name
    atlas = options.atlas or find_atlas(REPOSITORY, model.info["sha256"]) or ATLAS
    page = look(model, name, options.image, options.out, atlas, context.progress)
    return _report(page, start)


def _context(options: argparse.Namespace) -> Context:
    """Return the inputs named by the options."""
    from tqdm import tqdm

    from reproduce.core.context import Context
    from reproduce.core.figure import DEFAULT_MODEL
    from zfnet.training.distributed import join

    # The progress bar over figures is above the bars of a single figure.
    nested = {"leave": False, "position": 1} if options.command in ("run", "all") else {}
    with join(options.device) as (_, device):
        return Context(
            options.model or DEFAULT_MODEL,
            getattr(options, "data", None),
            str(device),
            functools.partial(tqdm, dynamic_ncols=True, **nested),
            getattr(options, "datasets", None),
            options.weights,
            getattr(options, "scale", None),
        )


def _report(page: Path, start: float) -> int:
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB in {time.perf_counter() - start:.0f} s. Open {page}")
    return OK


COMMANDS = {
    "list": list_figures,
    "replication": write_replication,
    "run": make_figures,
    "all": make_figures,
    "atlas": write_atlas,
    "look": write_look,
}


if __name__ == "__main__":
    sys.exit(main())
