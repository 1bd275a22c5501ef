"""The course: its ten steps, links, commands and numbers, and its notebook."""

import json
import re
import shlex

import pytest

import zfnet
from reproduce.core.discovery import discover
from reproduce.notebook import COURSE, notebook, relink, write
from tests.conftest import ROOT
from tests.reproduce.test_figures import command

TEXT = COURSE.read_text("utf-8")
RECORDS = ROOT / "figures" / "imagenet65k"
COUNT = ("none", "one", "two", "all")  # of three
STEPS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def test_the_ten_steps_are_complete():
    assert [int(step.split(".")[0]) for step in STEPS] == list(range(1, 11))
    for step in STEPS:
        title = step.splitlines()[0]
        assert title.endswith("?"), title
        assert len(re.findall(r"^!\[.+\]\(\.\./\.\./figures/.+\)$", step, re.MULTILINE)) == 1, title
        assert re.search(r"^    python -m reproduce run ", step, re.MULTILINE), title
        assert re.search(r"^```python$", step, re.MULTILINE), title
        question = step.partition("**To you:**")[2]
        assert "?" in question, title
    assert "layer 1 look for" in STEPS[0].splitlines()[0]
    assert "fool" in STEPS[-1].splitlines()[0]


def test_every_link_exists():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(links) >= 11
    missing = [
        link
        for link in links
        if not link.startswith("http") and not (COURSE.parent / link).exists()
    ]
    assert not missing


def test_every_command_names_figures_that_exist_and_the_picture_beside_it():
    scripts = discover()
    for step in STEPS:
        (line,) = re.findall(r"^    python -m reproduce run (.+)$", step, re.MULTILINE)
        words = [word for word in shlex.split(line) if word not in ("--data", "PATH")]
        assert set(words) <= set(scripts), line
        assert re.search(r"figures/imagenet65k/(\w+)/", step)[1] == words[0]
        needs_images = {"images", "top"} & set(scripts[words[0]].FIGURE.inputs)
        assert ("--data PATH" in line) == bool(needs_images), line
    for name in re.findall(r"`(\w+)` counts", TEXT):
        assert name in scripts


def measured(figure):
    return json.loads((RECORDS / figure / "result.json").read_text("utf-8"))["measured"]


def percent(*shares):
    """Shares of one as whole percentages."""
    return [f"{100 * share:.0f}" for share in shares]


def test_numbers_match_the_records():
    """Trained and recorded again, the text has to follow: a failure shows the sentences that it has to hold."""
    accuracy = measured("accuracy")["top-1 accuracy, %"]["1 crop"][0]
    positive = [share[0] for share in measured("maps")["share of positions above zero"].values()]
    blank = max(share[0] for share in measured("maps")["share of blank maps"].values())
    fig2 = measured("fig2")
    shown = [image for name, image in measured("fig7").items() if name != "claims"]
    mistaken = [image["class"] != image["predicted"] for image in shown]
    face = next(image["logit change"]["face"] for image in shown if "face" in image["logit change"])
    next_class = "rank correlation with the map of the next class"
    alike = {
        m: v[next_class]
        for m, v in measured("attributions").items()
        if m in zfnet.METHODS and next_class in v
    }
    cues = measured("parts_shape_texture")
    kept, conflict = cues["probability kept, of the image's"], cues["cue conflict"]
    decided = sum(conflict["decisions for texture, for shape"])
    mistakes = measured("mistakes")
    sharpness = measured("attributes")["sharpness"]["top-1, % by bin"]
    rows = measured("class_images").values()
    sets = [row for row in rows if isinstance(row, dict) and "classes" in row]
    drawn = sets[1]  # before further ascent
    fooling = measured("fooling")
    smallest = fooling["smallest changes"]
    fooled = [
        not wrong and image["class"] != now
        for image, wrong, now in zip(
            shown, mistaken, fooling["examples"]["smallest"]["taken for"], strict=True
        )
    ]
    said = [
        f"right on {accuracy:.0f} % of 10,000 held-out ImageNet images",
        f"the bundled ZFNet: {accuracy:.0f} % top-1 of 1000 classes",
        "In this network {} % of layer 1's activations are above zero".format(
            *percent(positive[0])
        ),
        "{} to {} % in the layers above".format(*percent(min(positive[1:]), max(positive[1:]))),
        f"No layer has more than {100 * blank:.1f} % blank maps",
        f"the most common class has {100 * fig2['one class among the top nine, mean share']['conv5']:.1f} % of them, "
        f"by chance {100 * fig2['by chance (labels shuffled), conv5']:.1f} %",
        f"({9 * fig2['one class among the top nine, mean share']['conv5']:.1f} of nine images, against "
        f"{9 * fig2['by chance (labels shuffled), conv5']:.1f})",
        f"{COUNT[sum(mistaken)].capitalize()} of the three images "
        f"{'is' if sum(mistaken) == 1 else 'are'} misclassified",
        f"covering the man's face {'raises' if face > 0 else 'lowers'} the logit of the hound's class",
        f"(rank correlation {alike['guided_backprop']:.2f}, mean of three images), those of Grad-CAM++ and the deconvnet "
        f"change little ({alike['grad_cam_plus_plus']:.2f} and {alike['deconvnet']:.2f}), and the gradient's changes more "
        f"({alike['saliency']:.2f})",
        f"keeps {100 * kept['outline only'][0]:.1f} % of the class's probability",
        "Sixteen shuffled parts keep {} %, the texture alone {} % (mean over {} correctly classified images)".format(
            *percent(kept["parts shuffled, 4 x 4"][0], kept["texture only"][0]), cues["images"]
        ),
        f"Of the painted images {conflict['pairs'] - decided} of {conflict['pairs']} are predicted as neither class, and of the other "
        f"{decided} most as the texture's ({{:.0f}} %, {{:.0f}} to {{:.0f}})".format(
            *conflict["texture share, %"]
        ),
        f"among the {cues['classes']} classes of these images. Among all 1,000 classes, {{}} are predicted as the texture's "
        "and {} as the shape's".format(
            *conflict["of all outputs, decisions for texture, for shape"]
        ),
        f"({mistakes['within the kind, %']['most confident'][0]:.0f} % of the hundred most confident, "
        f"{mistakes['within the kind, %']['other mistakes'][0]:.0f} % of all others, "
        f"by chance {mistakes['within the kind by chance, %']:.0f} %)",
        f"({sharpness[-1]:.0f} % of the sharpest fifth, {sharpness[0]:.0f} % of the least sharp)",
        f"in {mistakes['right, of all images judged as confidently, %'][0]:.0f} % of such images",
        f"all {round(drawn['classes'] * drawn['taken for their class, %'] / 100)} are predicted as their classes",
        f"alters the prediction is {smallest['change of a pixel, root mean square, median, grey levels']:.2f} gray levels "
        f"(root mean square; median of {smallest['images']} images; "
        f"{smallest['largest change of a pixel, median, grey levels']:.0f} level at its largest pixel)",
        f"of the three images of Figure 7 the {COUNT[sum(fooled)]} correct ones become wrong",
    ]
    text = " ".join(TEXT.split())
    assert not [sentence for sentence in said if sentence not in text]


def test_the_notebook_is_the_readme():
    made = notebook(TEXT)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert len(code) == 1 + len(STEPS)
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    assert code[0].source.startswith("%matplotlib inline\nimport torch")
    together = []
    for cell in made.cells:
        source = cell.source.removeprefix("%matplotlib inline\n")
        together.append(f"```python\n{source}\n```" if cell.cell_type == "code" else source)
    assert [line for line in "\n".join(together).splitlines() if line] == [
        line for line in TEXT.splitlines() if line
    ]


@pytest.mark.parametrize("out", ["deep/course.ipynb", "deep/", "deep"])
def test_links_are_relative_to_the_notebook(tmp_path, out):
    done = command("reproduce", "notebook", "--out", f"{tmp_path}/{out}")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "deep" / "course.ipynb"
    assert f"wrote {path}" in done.stdout
    made = json.loads(path.read_text("utf-8"))
    links = re.findall(
        r"\]\((?!http)([^)\s]+)\)", "".join("".join(cell["source"]) for cell in made["cells"])
    )
    assert len(links) >= 11
    assert not [link for link in links if not (path.parent / link).exists()]


def test_links_stay_beside_the_readme():
    assert relink(TEXT, COURSE.parent) == TEXT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """In a Jupyter kernel, as a reader runs it: no cell fails, and the figures are shown."""
    nbformat = pytest.importorskip(
        "nbformat", reason="nbclient and ipykernel, of the dev extra, are not installed"
    )
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient and ipykernel, of the dev extra, are not installed"
    )
    made = nbformat.read(write(tmp_path / "course.ipynb"), as_version=4)
    nbformat.validate(made)
    nbclient.NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    shown = [
        cell
        for cell in code
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
    drawing = [cell for cell in code if "_figure(" in cell.source]
    assert len(shown) == len(drawing) >= 6
