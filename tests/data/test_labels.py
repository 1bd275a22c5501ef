"""Class lookup by name, and the classes that an error message suggests."""

import pytest

from zfnet.data.labels import (
    ILSVRC_GROUPS,
    ILSVRC_SYNONYMS,
    find_class,
    imagenet_names,
    related_classes,
)
from zfnet.networks import imagenet_wnids


@pytest.fixture(scope="module")
def error_message():
    """Return a function that gives the error message for a name."""

    def message(name, classes=imagenet_names()):  # noqa: B008, cached
        with pytest.raises(ValueError, match="no class") as error:
            find_class(name, classes, imagenet_wnids()[: len(classes)])
        return str(error.value)

    return message


def test_suggestions_are_classes_with_the_word_and_its_group(error_message):
    assert (
        error_message("cat")
        == "no class 'cat'; choose from tiger cat, Persian cat, Siamese cat, Egyptian cat, Madagascar cat, tabby"
    )
    assert error_message("Cat") == error_message("cat").replace("'cat'", "'Cat'")
    dogs = error_message("dog").split("choose from ")[1]
    assert dogs.startswith("Maltese dog, ")
    # 118 breeds and the African hunting dog; the message lists ten of them.
    assert dogs.endswith(" and 109 more")
    assert len(dogs.split(",")) == 10
    # Afghan, Walker and Ibizan hound, but not bloodhound.
    assert error_message("hound").count("hound") == 4
    assert "did you mean goldfish" in error_message("goldfisch")
    assert error_message("zzzz") == "no class 'zzzz'; there are 1000 classes, such as tench"
    assert error_message("") == "no class ''; there are 1000 classes, such as tench"


def test_suggestions_are_classes_of_the_network(error_message):
    assert error_message("fish", ["goldfish", "tabby"]) == "no class 'fish'; choose from goldfish"
    assert related_classes("cat", ["tabby", "cattle", "a (cat)"]) == ["a (cat)", "tabby"]
    assert related_classes("c++ (", ["tabby"]) == []


@pytest.mark.parametrize(
    ("group", "first", "last", "count"),
    [
        ("fish", "tench", "puffer", 16), ("shark", "great white shark", "hammerhead", 3), ("bird", "cock", "albatross", 59),
        ("frog", "bullfrog", "tailed frog", 3), ("turtle", "loggerhead", "box turtle", 5), ("lizard", "banded gecko", "Komodo dragon", 11),
        ("snake", "thunder snake", "sidewinder", 17), ("spider", "black and gold garden spider", "wolf spider", 6),
        ("dog", "Chihuahua", "Mexican hairless", 118), ("wolf", "timber wolf", "red wolf", 3), ("fox", "red fox", "grey fox", 4),
        ("cat", "tabby", "Egyptian cat", 5), ("bear", "brown bear", "sloth bear", 4), ("butterfly", "admiral", "lycaenid", 6),
        ("monkey", "guenon", "squirrel monkey", 13), ("car", "ambulance", "sports car", 10),
    ],
)  # fmt: skip
def test_groups_match_wordnet(group, first, last, count):
    indices = [i for part in ILSVRC_GROUPS[group] for i in part]
    names = imagenet_names()
    assert (names[indices[0]], names[indices[-1]], len(indices)) == (first, last, count)
    assert indices == sorted(set(indices))


def test_groups_do_not_overlap_except_sharks():
    indices = [
        i
        for group, parts in ILSVRC_GROUPS.items()
        if group != "shark"
        for part in parts
        for i in part
    ]
    assert (
        len(indices)
        == len(set(indices))
        == 16 + 59 + 3 + 5 + 11 + 17 + 6 + 118 + 3 + 4 + 5 + 4 + 6 + 13 + 10
    )
    cars = [imagenet_names()[i] for part in ILSVRC_GROUPS["car"] for i in part]
    assert cars == [
        "ambulance",
        "beach wagon",
        "cab",
        "convertible",
        "jeep",
        "limousine",
        "minivan",
        "Model T",
        "racer",
        "sports car",
    ]


def test_synonyms_name_classes_and_repeat_no_group():
    names = set(imagenet_names())
    assert {n for synonyms in ILSVRC_SYNONYMS.values() for n in synonyms} <= names
    assert not set(ILSVRC_SYNONYMS) & set(ILSVRC_GROUPS)
    assert related_classes("Sofa", imagenet_names()) == ["studio couch"]
    assert related_classes("panda", imagenet_names()) == ["lesser panda", "giant panda"]
