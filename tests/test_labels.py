"""Classes by name, and which classes an error offers for a word of everyday language."""

import pytest

from zfnet.data.folders import imagenet_names
from zfnet.labels import ILSVRC_GROUPS, find_class, related_classes
from zfnet.networks import imagenet_wnids


@pytest.fixture(scope="module")
def offered():
    """What the error for a name says after its first part."""

    def message(name, classes=imagenet_names()):  # noqa: B008, cached
        with pytest.raises(ValueError, match="no class") as error:
            find_class(name, classes, imagenet_wnids()[: len(classes)])
        return str(error.value)

    return message


def test_a_word_offers_the_classes_that_contain_it_and_then_its_group(offered):
    assert (
        offered("cat")
        == "no class 'cat'; choose from tiger cat, Persian cat, Siamese cat, Egyptian cat, Madagascar cat, tabby"
    )
    assert offered("Cat") == offered("cat").replace("'cat'", "'Cat'")
    dogs = offered("dog").split("choose from ")[1]
    assert dogs.startswith("Maltese dog, ")
    # 118 breeds and the African hunting dog, of which ten are named.
    assert dogs.endswith(" and 109 more")
    assert len(dogs.split(",")) == 10
    # Afghan, Walker and Ibizan hound, but no bloodhound.
    assert offered("hound").count("hound") == 4
    assert "did you mean goldfish" in offered("goldfisch")
    assert offered("zzzz") == "no class 'zzzz'; there are 1000 classes, such as tench"
    assert offered("") == "no class ''; there are 1000 classes, such as tench"


def test_only_classes_of_the_network_are_offered(offered):
    assert offered("fish", ["goldfish", "tabby"]) == "no class 'fish'; choose from goldfish"
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
def test_groups_begin_and_end_where_wordnet_has_them(group, first, last, count):
    indices = [i for part in ILSVRC_GROUPS[group] for i in part]
    names = imagenet_names()
    assert (names[indices[0]], names[indices[-1]], len(indices)) == (first, last, count)
    assert indices == sorted(set(indices))


def test_all_groups_are_tested_and_do_not_overlap_but_for_sharks():
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
