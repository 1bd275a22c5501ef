"""Class names of ILSVRC 2012, and the lookup of classes by number, id or name."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from numbers import Integral

from zfnet.data.io import encode_name, printable_name

# The sha256 of the 1000 sorted WordNet ids of ILSVRC 2012, one per line.
ILSVRC_2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
# Names that ILSVRC 2012 gives to two classes each. torchvision renames one class of a pair, which
# one depends on the version.
ILSVRC_SHARED = {"crane": ("n02012849", "n03126707"), "maillot": ("n03710637", "n03710721")}
# Everyday words for ranges of ILSVRC's 1000 classes, which are sorted by WordNet id.
ILSVRC_GROUPS: dict[str, tuple[range, ...]] = {
    "fish": (range(0, 7), range(389, 398)),  # tench to stingray, barracouta to puffer
    "shark": (range(2, 5),),  # great white shark to hammerhead
    "bird": (range(7, 25), range(80, 101), range(127, 147)),  # cock to albatross
    "frog": (range(30, 33),),  # bullfrog to tailed frog
    "turtle": (range(33, 38),),  # loggerhead to box turtle
    "lizard": (range(38, 49),),  # banded gecko to Komodo dragon
    "snake": (range(52, 69),),  # thunder snake to sidewinder
    "spider": (range(72, 78),),  # black and gold garden spider to wolf spider
    "dog": (range(151, 269),),  # Chihuahua to Mexican hairless
    "wolf": (range(269, 272),),  # timber wolf to red wolf
    "fox": (range(277, 281),),  # red fox to grey fox
    "cat": (range(281, 286),),  # tabby to Egyptian cat
    "bear": (range(294, 298),),  # brown bear to sloth bear
    "butterfly": (range(321, 327),),  # admiral to lycaenid
    "monkey": (range(370, 383),),  # guenon to squirrel monkey
    "car": tuple(range(i, i + 1) for i in (407, 436, 468, 511, 609, 627, 656, 661, 751, 817)),
}
# Everyday words for single classes; ILSVRC names each class by one word only.
ILSVRC_SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("airliner", "warplane"),
    "alsatian": ("German shepherd",),
    "ape": ("orangutan", "gorilla", "chimpanzee", "gibbon", "siamang"),
    "bicycle": ("mountain bike", "bicycle-built-for-two"),
    "bike": ("mountain bike", "bicycle-built-for-two", "moped"),
    "boat": ("fireboat", "lifeboat", "speedboat", "canoe", "gondola", "yawl", "catamaran"),
    "bug": ("leafhopper", "ladybug", "cicada"),
    "burger": ("cheeseburger",),
    "chimp": ("chimpanzee",),
    "coffee": ("espresso", "espresso maker", "coffee mug", "coffeepot"),
    "cow": ("ox", "water buffalo"),
    "couch": ("studio couch",),
    "dinosaur": ("triceratops",),
    "duck": ("drake", "red-breasted merganser"),
    "fruit": ("Granny Smith", "strawberry", "orange", "lemon", "fig", "pineapple", "banana"),
    "glasses": ("sunglasses", "sunglass"),
    "gun": ("assault rifle", "rifle", "revolver"),
    "horse": ("sorrel", "zebra"),
    "insect": ("ladybug", "fly", "bee", "ant", "grasshopper", "cricket", "mantis", "dragonfly"),
    "kangaroo": ("wallaby",),
    "kitten": ("tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"),
    "knife": ("cleaver", "letter opener"),
    "lorry": ("garbage truck", "tow truck", "trailer truck"),
    "motorcycle": ("moped", "motor scooter"),
    "panda": ("giant panda", "lesser panda"),
    "parrot": ("African grey", "macaw", "sulphur-crested cockatoo", "lorikeet"),
    "phone": ("cellular telephone", "dial telephone", "pay-phone"),
    "pig": ("hog", "wild boar", "warthog"),
    "plane": ("airliner", "warplane"),
    "rabbit": ("hare", "Angora"),
    "sheep": ("ram", "bighorn"),
    "ship": ("liner", "container ship", "aircraft carrier", "pirate", "schooner", "wreck"),
    "sneaker": ("running shoe",),
    "sofa": ("studio couch",),
    "taxi": ("cab",),
    "train": ("bullet train", "steam locomotive", "electric locomotive", "freight car"),
    "truck": ("pickup", "fire engine", "moving van"),
    "tv": ("television",),
    "vegetable": ("head cabbage", "broccoli", "cauliflower", "zucchini", "cucumber", "artichoke"),
}
MAX_SUGGESTIONS = 10  # classes that an error message lists


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the 1000 class names of ILSVRC 2012, in the order of their sorted WordNet ids.

    Example:
        >>> imagenet_names()[160]
        'Afghan hound'
    """
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def class_names(folders: Sequence[str]) -> list[str]:
    """Return readable names of class folders.

    Args:
        folders: The folders' names in sorted order.

    Returns:
        ILSVRC 2012's names if the folders are its 1000 WordNet ids, else the folders' names, with
        escapes for what is not printable.

    Example:
        >>> class_names(["cat", "dog"])
        ['cat', 'dog']
    """
    if names_digest(folders) == ILSVRC_2012:
        return list(imagenet_names())
    return [printable_name(folder) for folder in folders]


def names_digest(folders: Sequence[str]) -> str:
    """Return the sha256 of names, one per line. Compare it with `ILSVRC_2012`."""
    return hashlib.sha256(encode_name("\n".join(folders))).hexdigest()


def find_class(name: str | int, classes: Sequence[str], wnids: Sequence[str]) -> int:
    """Return the index of a class.

    Args:
        name: A number below the number of classes, a WordNet id, or a name in any case
            ("Afghan hound").
        classes: The names of the outputs, in order.
        wnids: Their WordNet ids, in order.

    Returns:
        The index of the output.

    Raises:
        ValueError: There is no such class, or two have this name (crane, maillot). The message
            suggests classes that contain the word or belong to its group, or similar names.

    Example:
        >>> find_class("goldfish", ["tench", "goldfish"], ["n01440764", "n01443537"])
        1
    """
    text = str(name).strip()
    is_number = isinstance(name, Integral) and not isinstance(name, bool)
    if is_number and int(text) in range(len(classes)):
        return int(text)
    if text in wnids:
        return list(wnids).index(text)
    shared = [w for w in ILSVRC_SHARED.get(text.lower(), ()) if w in wnids]
    if len(shared) > 1:
        raise ValueError(_ambiguous(text, shared))
    # Cardigan is a dog, cardigan a garment.
    matches = [i for i, c in enumerate(classes) if c == text]
    matches = matches or [i for i, c in enumerate(classes) if c.lower() == text.lower()]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(_ambiguous(text, [wnids[i] for i in matches]))
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    if text.removeprefix("-").isdecimal():
        raise ValueError(f"no class {text}; class numbers are 0 to {len(classes) - 1}")
    raise ValueError(f"no class {text!r}; {_suggestion(text, classes)}")


def related_classes(word: str, classes: Sequence[str]) -> list[str]:
    """Return the classes with a word in their name, then those of its group and its synonyms.

    Args:
        word: A word in any case, such as "cat".
        classes: The names to choose from.

    Example:
        >>> related_classes("cat", ["tabby", "Egyptian cat", "goldfish"])
        ['Egyptian cat', 'tabby']
    """
    whole_word = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    names = imagenet_names()
    group = {names[i] for part in ILSVRC_GROUPS.get(word.lower(), ()) for i in part}
    group |= set(ILSVRC_SYNONYMS.get(word.lower(), ()))
    matches = [c for c in classes if whole_word.search(c)] if word else []
    return list(dict.fromkeys([*matches, *(c for c in classes if c in group)]))


def _ambiguous(text: str, wnids: Sequence[str]) -> str:
    return f"{text!r} names {len(wnids)} classes; use a WordNet id: {', '.join(wnids)}"


def _suggestion(text: str, classes: Sequence[str]) -> str:
    if related := related_classes(text, classes):
        more = len(related) - MAX_SUGGESTIONS
        suffix = f" and {more} more" if more > 0 else ""
        return f"choose from {', '.join(related[:MAX_SUGGESTIONS])}{suffix}"
    lower = {c.lower(): c for c in classes}
    if similar := [lower[n] for n in difflib.get_close_matches(text.lower(), lower, 3, 0.5)]:
        return f"did you mean {' or '.join(similar)}?"
    return f"there are {len(classes)} classes, such as {classes[0]}"
