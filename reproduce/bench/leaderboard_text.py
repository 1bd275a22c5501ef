"""The paragraphs of docs/leaderboard.md."""

INTRO = """# Leaderboard

<!-- Written by `python -m reproduce.bench.leaderboard page`. Do not edit. -->

Every method of `zfnet.METHODS` under every metric, and controls with a known truth. ↑ means that
higher is better, ↓ that lower is better. Values are means; the CSV files have the 95 % bootstrap
intervals, the number of images, and the number of constant maps. [Benchmark](benchmark.md) explains
the metrics, and how to score a method of your own.
"""
SCENES = """## Drawn scenes

{images} scenes that a small ZFNet classifies correctly. Only the object's shape shows the class.
Intervals and costs: [scenes.csv](leaderboard/scenes.csv). CPU milliseconds are of one thread on a
shared machine, so compare them with each other only.
"""
SHORTCUT = """## A planted shortcut

Scenes with a colored tag. In training the tag shows the class and the object does not. In these
{images} scenes the object has the class's shape too. A faithful method points at the tag; a map on
the object looks plausible, and is wrong. What the network reads:

{accuracy}

[shortcut.csv](leaderboard/shortcut.csv) has the intervals for the tag,
[shortcut-object.csv](leaderboard/shortcut-object.csv) those for the object. The tag is smaller than
one cell of the last feature maps, one reason why class activation maps miss it.
"""
METRIC_RANKS = """## Do the metrics agree?

Spearman's rank correlation of the methods' order, best first, on the scenes. A negative number
means that the methods that one metric prefers are those that the other one rejects.
"""
NETWORK_RANKS = """## Do networks agree?

Spearman's rank correlation of the methods' order under {metric}, between networks trained on the
same scenes: three seeds of ZFNet, and AlexNet's filters.
"""
PHOTOGRAPHS = """## Photographs: {model}

{images} validation images of ImageNet-65k that the bundled network {model} classifies correctly.
"""
DOGS = """{images} photographs of dogs with boxes, from the same validation images. The boxes fill
most of the view, so compare with the center.
"""
PEERS = """## Compared with other packages

The same method of other packages on {images} images, one thread, in calls of ten images. The
largest difference is between maps scaled to [0, 1]: pytorch-grad-cam and torch-cam scale theirs.
Grad-CAM++ of torch-cam 0.5.0 differs because it divides a copy of its coefficients, so that they
stay undivided. Times are wall-clock, the fastest of three calls or more, on a shared machine.
"""
ADD = """## Add a row

1. Write a function `method(model, x, target)` that returns (N, 1, H, W) or (N, C, H, W).
2. Try it: `zfnet bench --methods my_module:my_function,grad_cam -o bench`.
3. Add it to `METHODS` in `reproduce/bench/leaderboard.py`, and run
   `python -m reproduce.bench.leaderboard scenes --limit {limit}`. It continues from the cache of
   this machine, and writes the CSV files and this page.
4. Open a pull request with the code, the CSV files and this page.

`python -m reproduce.bench.leaderboard all --data IMAGENET65K` makes all tables. An interrupted run
continues where it stopped.
"""
