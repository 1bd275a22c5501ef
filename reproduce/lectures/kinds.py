"""Six broad kinds of ILSVRC's 1,000 classes, such as dogs and birds."""

from __future__ import annotations

import numpy as np

# Ranges of outputs. ILSVRC sorts its classes by WordNet id, which keeps related classes together.
KINDS = {
    "dogs": [(151, 269)],
    "other mammals": [(101, 107), (147, 151), (269, 300), (330, 389)],
    "birds": [(7, 25), (80, 101), (127, 147)],
    "other animals": [(0, 7), (25, 80), (107, 127), (300, 330), (389, 398)],
    "food and plants": [(924, 970), (984, 999)],
}
OTHERS = "things and places"
KIND_NAMES = (*KINDS, OTHERS)


def kind_table() -> np.ndarray:
    """The kind of each class as an index into KIND_NAMES, (1000,)."""
    table = np.full(1000, len(KINDS))
    for number, ranges in enumerate(KINDS.values()):
        for low, high in ranges:
            table[low:high] = number
    return table
