"""`zfnet explain`: attribute a class score to image regions."""

from __future__ import annotations

import argparse
import sys

from zfnet import plot
from zfnet.attribution.registry import explain
from zfnet.cli.common import (
    check_picture,
    load_model,
    load_photograph,
    target_index,
    usage_errors,
    write_picture,
)
from zfnet.outputs import probability_function


def run(options: argparse.Namespace) -> None:
    check_picture(options.out, options.image)
    model = load_model(options)
    x = load_photograph(options.image, model)
    with usage_errors():
        a = explain(model, x, options.method, target_index(model, options.target))
    logits = model(x)[0].detach()
    probabilities = probability_function(model)(logits)
    target, predicted = int(a.target), int(logits.argmax())
    probability, (state,) = float(probabilities[target]), a.state
    name = model.classes[target]
    logit = float(logits[target])
    title = f"{options.method} for {name}: probability {probability:.3f}, logit {logit:.2f}"
    values = f"raw values from {float(a.map.min()):.3g} to {float(a.map.max()):.3g}"
    values += "" if state == "ok" else f"; the map is {state}"
    print(f"{title}; {values}")
    if predicted != target:
        print(f"predicted class: {model.classes[predicted]}")
    write_picture(plot.attribution_figure(x.cpu(), a.map.cpu(), title, values), options.out)
    if state != "ok":
        print(f"zfnet explain: the map is {state}; it does not explain this image", file=sys.stderr)
