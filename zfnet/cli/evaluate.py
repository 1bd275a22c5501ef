"""`zfnet eval`: measure the error of a network over a tree of images."""

from __future__ import annotations

import argparse

from zfnet.cli.common import (
    load_model,
    load_tree,
    progress_bar,
    usage_errors,
)
from zfnet.data import no_progress
from zfnet.training.distributed import join
from zfnet.training.evaluate import evaluate


def run(options: argparse.Namespace) -> None:
    with join(options.device) as (distributed, device):
        model = load_model(options, device)
        images = load_tree(options.data, model, skip_unreadable=options.skip_unreadable)
        bar = progress_bar if distributed.is_main else no_progress
        with usage_errors():
            scores = evaluate(
                model,
                images,
                views=options.views,
                precision=options.precision,
                distributed=distributed,
                progress=bar,
            )
    if not distributed.is_main:
        return
    crops = "one center crop" if scores.views == 1 else "ten crops"
    print(f"{scores.n} images, {crops} of {model.size} pixels, {options.precision}:")
    print(f"top-1 error {scores.top1:.2f} %, top-5 error {scores.top5:.2f} %")
    print(f"top-1 accuracy {100 - scores.top1:.2f} %, top-5 accuracy {100 - scores.top5:.2f} %")
