"""Table 2: the classification error of ZFNet, beside Krizhevsky's network, and of ensembles.

The paper's claims: ZFNet beats its replica of AlexNet; ZFNets of several seeds averaged beat one; so does ZFNet with wider
layers 3-5, and all of them together beat every other row. Ours are the networks of Table 3, trained by its recipe on a part of
ImageNet (python -m reproduce run tab3): the released one with BatchNorm never stands in. Krizhevsky's are the paper's alone.
"""

import numpy as np

from reproduce.core.claims import above, verdict
from reproduce.core.figure import Figure, Result
from reproduce.paper.ablations import (
    NO_TREE,
    SETTINGS,
    WIDE,
    Row,
    diverged,
    load,
    paper_scale,
    plan_for,
    ranks,
    trained,
)
from zfnet.analysis.intervals import mean_interval
from zfnet.plot import draw_table, new_figure

ERROR = "error, %: val top-1, val top-5"
FIGURE = Figure(
    id="tab2",
    title="ImageNet 2012 classification error",
    claim="ZFNet beats AlexNet, an ensemble of ZFNets beats one, wider layers 3-5 help, and all together are best.",
    inputs=("tree", "device"),
    seed=0,
    time_budget=2000,
    paper={
        ERROR: {
            "Krizhevsky et al., 1 net": [40.7, 18.2], "Krizhevsky et al., 5 nets": [38.1, 16.4],
            "AlexNet, the replica": [40.5, 18.1], "ZFNet": [38.4, 16.5], "ZFNets (a)": [36.7, 15.3],
            "ZFNet with wider layers 3-5 (b)": [37.5, 16.0],
            "(a) and (b)": [36.0, 14.7],
        },
        "test top-5": {
            "Krizhevsky et al., 5 nets": 16.4, "ZFNets (a)": 15.3,
            "ZFNet with wider layers 3-5 (b)": 16.1, "(a) and (b)": 14.8,
        },
        "nets": {"ZFNets (a)": 5, "(a) and (b)": 6},
    },
    config=SETTINGS | {"times chance": 3},
    files=("../../configs/ablations.yaml", "../../configs/imagenet.yaml"),
    manual=True,
    trains=True,
    scales=("paper", "subset", "smoke"),
)  # fmt: skip
ONE, MANY, WIDER, ALL = "ZFNet", "ZFNets (a)", "ZFNet with wider layers 3-5 (b)", "(a) and (b)"
REPLICA = "AlexNet, the replica"


def compute(ctx) -> Result:
    if ctx.tree is None:
        return Result({}, {}, "not run", n=0, note=NO_TREE, scale="smoke")
    plan = plan_for(ctx)
    images = {split: load(ctx, plan, split) for split in ("train", "val")}
    seeds = ctx.progress(range(plan.seeds), total=plan.seeds, desc="ZFNets")
    zfnets = [trained(ctx, plan, images, "ZFNet", seed) for seed in seeds]
    return judge(
        trained(ctx, plan, images, "AlexNet", 0),
        zfnets,
        trained(ctx, plan, images, f"ZFNet, {WIDE}", 0),
        plan,
    )


def judge(alexnet: Row, zfnets: list[Row], wide: Row, plan) -> Result:
    """Errors of single networks and of the mean of their probabilities, and whether each step of the paper's is one down."""
    ended = diverged({REPLICA: [alexnet], "ZFNet": zfnets, WIDER: [wide]})
    found = {REPLICA: together([alexnet]), ONE: together(zfnets[:1]), WIDER: together([wide])}
    good = [row for row in zfnets if not row.about["diverged"]]
    if len(good) > 1:
        found |= {MANY: together(good)} | (
            {} if wide.about["diverged"] else {ALL: together([*good, wide])}
        )
    errors = {
        name: [round(100 * float((rank > k).mean()), 2) for k in (1, 5)]
        for name, rank in found.items()
    }
    nets = {name: n for name, n in ((MANY, len(good)), (ALL, len(good) + 1)) if name in found}
    measured: dict = {ERROR: errors, "nets": nets}
    steps = {"ZFNet beats AlexNet": (ONE, REPLICA), "wider layers 3-5 help": (WIDER, ONE)}
    if MANY in found:
        steps["several ZFNets beat one"] = (MANY, ONE)
    if ALL in found:
        steps |= {
            "all together beat several ZFNets": (ALL, MANY),
            "all together beat the wider one": (ALL, WIDER),
        }
    gains = {
        claim: mean_interval(100.0 * ((found[worse] > 1).astype(float) - (found[better] > 1)))
        for claim, (better, worse) in steps.items()
    }
    measured["gain in val top-1, points, with its 95 % interval"] = gains
    classes = len(np.unique(alexnet.label))
    measured |= {"classes": classes, "epochs": plan.epochs, "trainings that diverged": ended}
    learnt = (
        min(100 - errors[name][0] for name in (REPLICA, ONE, WIDER))
        >= FIGURE.config["times chance"] * 100 / classes
    )
    measured["claims"], said = verdict(
        {claim: above(gain) for claim, gain in gains.items()} if learnt else {}
    )
    said = said if plan.scale != "smoke" else "not comparable"
    crops = "ten crops" if plan.views == 10 else "one centre crop"
    note = (
        f"The networks of Table 3 on {classes} classes, {plan.scale} scale, {len(zfnets)} seed{'s' * (len(zfnets) > 1)}; "
        f"{crops}; intervals over validation images. The test set's labels are not public. "
    )
    if ended:
        note += f"Diverged, and left out of the means: {'; '.join(f'{n}: {w}' for n, w in ended.items())}. "
    if not learnt:
        note += f"The networks are not {FIGURE.config['times chance']} times as good as chance: nothing is compared. "
    return Result(
        {},
        measured,
        said,
        n=len(alexnet.label),
        note=note + paper_scale(zfnets[0], plan.size),
        scale=plan.scale,
    )


def together(rows: list[Row]) -> np.ndarray:
    """The true class's place by the mean of the networks' probabilities: (N,); beyond the last where one diverged."""
    ended = [row.rank for row in rows if row.about["diverged"]]
    if ended:
        return ended[0]
    return ranks(np.mean([row.probability for row in rows], axis=0), rows[0].label)


def draw(result: Result):
    if not result.measured:
        return {}
    ours, paper, test = result.measured[ERROR], FIGURE.paper[ERROR], FIGURE.paper["test top-5"]
    rows = []
    for name, (top1, top5) in paper.items():
        own = [f"{v:.1f}" for v in ours.get(name, [])] or ["–", "–"]
        whose = {"ours": result.measured, "paper": FIGURE.paper}
        nets = [
            f"{of['nets'][name]} nets ({who})" for who, of in whose.items() if name in of["nets"]
        ]
        title = f"{name}: {', '.join(nets)}" if nets else name
        rows.append([title, own[0], f"{top1:.1f}", own[1], f"{top5:.1f}", f"{test.get(name, '–')}"])
    header = [
        "error, %",
        "val top-1: ours",
        "paper",
        "val top-5: ours",
        "paper",
        "test top-5: paper",
    ]
    figure = new_figure(10.5, 2.8)
    axes = figure.subplots()
    draw_table(axes, header, rows, [2.4, 1.2, 0.8, 1.2, 0.8, 1.3], (2, 4, 5))
    of = result.measured
    axes.set_title(
        f"Our networks are Table 3's: {of['classes']} classes, {of['epochs']} epochs; {result.scale} scale"
    )
    return {"tab2.png": figure}
