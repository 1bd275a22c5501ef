"""The README's pictures of methods."""

import re

import zfnet
from reproduce.site import methods
from tests.conftest import ROOT


def test_every_method_has_a_picture_that_the_readme_shows():
    names = [path.stem for path in methods.FOLDER.iterdir()]
    assert set(zfnet.METHODS) | {"photograph", "project", "ascend"} == set(names)
    shown = re.findall(r"docs/methods/(\w+)\.jpg", (ROOT / "README.md").read_text("utf-8"))
    assert sorted(shown) == sorted(names)


def test_pictures_are_written_for_a_small_network(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "METHODS", ("saliency", "guided_backprop"))
    monkeypatch.setattr(methods, "STEPS", 2)
    model = zfnet.zfnet(classes=3, channels=(4, 6, 6, 6, 6), fc_units=8).eval()
    assert methods.main(tmp_path, model) == 0
    assert {"photograph", "project", "ascend", "saliency", "guided_backprop"} == {
        path.stem for path in tmp_path.iterdir()
    }
