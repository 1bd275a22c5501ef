"""`zfnet occlude`: occlude each part of an image, and map the network's response."""

from __future__ import annotations

import argparse

from zfnet import plot
from zfnet.cli.common import (
    check_picture,
    load_model,
    load_photograph,
    progress_bar,
    target_index,
    usage_errors,
    write_picture,
)
from zfnet.occlusion import occlude


def run(options: argparse.Namespace) -> None:
    check_picture(options.out, options.image)
    model = load_model(options)
    x = load_photograph(options.image, model)
    with usage_errors():
        target = target_index(model, options.target)
        o = occlude(
            model, x, target, size=options.size, stride=options.stride, progress=progress_bar
        )
    name, predicted = model.classes[int(o.target)], model.classes[int(o.baseline.label)]
    maps = {"probability": o.probability, "logit": o.logit}
    if o.activation is not None and o.channel is not None:
        maps = {f"strongest last-layer map ({int(o.channel)})": o.activation} | maps
    arrays = {title: values.cpu().numpy() for title, values in maps.items()}
    probability, logit = float(o.baseline.probability), float(o.baseline.logit)
    title = f"{name}: probability {probability:.3f}, logit {logit:.2f} without occluder"
    drop = logit - float(o.logit.min())
    print(f"{title}; the strongest occlusion effect lowers the logit by {drop:.2f}")
    if predicted != name:
        print(f"predicted class: {predicted}")
    labels = o.label.cpu().numpy()
    figure = plot.occlusion_figure(
        x.cpu(), arrays, labels, model.classes, options.size, options.stride, title
    )
    write_picture(figure, options.out)
