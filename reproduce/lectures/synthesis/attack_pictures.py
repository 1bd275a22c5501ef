"""Draw an image and its adversarial examples, with the predictions."""

from __future__ import annotations

import numpy as np

from reproduce.core.page import caption
from zfnet.plot import photograph, projection_image, show


def draw_attacks(panels: np.ndarray, a: dict[str, np.ndarray], i: int) -> None:
    """Draw an image, its smallest change, the result, and the image changed to a chosen class."""
    names, true, label = a["names"], a["true"][i], a["label"][i]
    text = f"predicted: {names[label]}, {a['probability'][i]:.2f}"
    if label != true:
        text += f"\n(true class: {names[true]})"
    show(panels[0], photograph(a["x"][i : i + 1])[0])
    caption(panels[0], text)
    change = a["smallest.pixels"][i : i + 1] - a["x"][i : i + 1]
    show(panels[1], projection_image(change)[0])
    caption(panels[1], f"smallest change, amplified:\nup to {a['smallest.largest'][i]:.1f} levels")
    titles = {
        "smallest": "image plus that change",
        "chosen": f"changed by up to {a['chosen.largest'][i]:.0f} levels",
    }
    for panel, (attack, title) in zip(panels[2:], titles.items(), strict=True):
        show(panel, photograph(a[f"{attack}.pixels"][i : i + 1])[0])
        caption(panel, f"{title}:\n{prediction(a, attack, i)}")


def prediction(a: dict[str, np.ndarray], attack: str, i: int) -> str:
    """The predicted class of an adversarial image, and its probability."""
    return f"{a['names'][a[f'{attack}.predicted'][i]]}, {a[f'{attack}.probability'][i]:.2f}"
