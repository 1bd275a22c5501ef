"""The streaming search against sorting everything at once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset

import zfnet
from tests.conftest import ROOT, random_he
from zfnet import forward
from zfnet import top as search
from zfnet.checkpoint import CheckpointError
from zfnet.graph import UnknownLayer
from zfnet.ranking import TopActivations
from zfnet.top import top_activations


class Noise(Dataset):
    """Images made on demand; some are exact copies of earlier ones, so that there are ties. Item `fail` cannot be read."""

    def __init__(
        self,
        n: int,
        labelled: bool = False,
        size: int = 64,
        repeat: int = 11,
        fail: int = -1,
        digest: str = "noise",
    ):
        self.n, self.labelled, self.size, self.repeat, self.fail, self.digest = (
            n,
            labelled,
            size,
            repeat,
            fail,
            digest,
        )
        self.read = 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.fail:
            raise OSError("unplugged")
        self.read += 1
        x = torch.randn(
            3, self.size, self.size, generator=torch.Generator().manual_seed(i % self.repeat)
        )
        return (x, i) if self.labelled else x


def small_net(**options):
    return random_he(
        zfnet.zfnet(
            4, **{"norm": "none", "channels": (6, 7, 8, 8, 5), "fc_units": 8, "size": 64} | options
        )
    )


@pytest.fixture(scope="module")
def small():
    return small_net()


@contextmanager
def counting(model):
    """Count the images that pass through each module."""
    passed = Counter()
    hooks = [
        module.register_forward_hook(lambda _, x, y, name=name: passed.update({name: len(x[0])}))
        for name, module in model.named_children()
    ]
    try:
        yield passed
    finally:
        for hook in hooks:
            hook.remove()


def same(a, b):
    """Whether two searches found the same, to the last bit."""
    pairs = [(vars(a[layer]), vars(b[layer])) for layer in a]
    return (
        list(a) == list(b)
        and a.images == b.images
        and all(torch.equal(x[n], y[n]) for x, y in pairs for n in x)
    )


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def brute_force(model, dataset, layer, k, groups=None):
    """Sort (value, -index) of every image's strongest position, slowly."""
    maps = torch.cat([zfnet.trace(model, dataset[i][None])[layer] for i in range(len(dataset))])
    for channel in range(maps.shape[1]):
        rows = [
            (float(m.max()), i, divmod(int(m.argmax()), m.shape[1]))
            for i, m in enumerate(maps[:, channel])
        ]
        rows.sort(key=lambda row: (-row[0], row[1]))
        if groups is not None:
            seen, kept = set(), []
            for row in rows:
                if groups[row[1]] not in seen:
                    seen.add(groups[row[1]])
                    kept.append(row)
            rows = kept
        yield rows[:k]


@pytest.mark.reference
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(30)]])
def test_equals_sorting_everything(small, batch, groups):
    dataset = Noise(30)
    found = top_activations(small, dataset, LAYERS, k=4, batch=batch, groups=groups)
    for layer in LAYERS:
        assert found[layer].position.shape == (*found[layer].value.shape, 2)
        for channel, rows in enumerate(brute_force(small, dataset, layer, 4, groups)):
            assert found[layer].index[channel].tolist() == [i for _, i, _ in rows]
            assert [tuple(p) for p in found[layer].position[channel].tolist()] == [
                p for _, _, p in rows
            ]
            assert found[layer].value[channel].tolist() == pytest.approx(
                [v for v, _, _ in rows], rel=1e-5
            )


@pytest.mark.reference
def test_equal_images_in_batches_of_any_size_stand_in_order():
    """A last batch of one would be rounded otherwise than a full one: an equal image there must not overtake."""
    model = random_he(zfnet.zfnet(10, fc_units=64, size=96))
    found = top_activations(
        model,
        [torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))] * 17,
        LAYERS,
        batch=8,
    )
    for layer in LAYERS:
        assert (found[layer].index == torch.arange(9)).all(), layer


@pytest.mark.reference
def test_each_image_is_read_once_and_counts_once(small):
    dataset = Noise(25, labelled=True)
    found = top_activations(small, dataset, ("conv3",), k=9)
    assert dataset.read == 25
    assert found.images == 25
    assert all(len(set(row)) == 9 for row in found["conv3"].index.tolist())


@pytest.mark.reference
def test_fewer_images_than_k_are_marked(small):
    top = top_activations(small, Noise(3), ("conv2", "fc7"), k=5)
    assert top["conv2"].value.shape == (7, 5)
    assert (top["conv2"].index[:, 3:] == -1).all()
    assert (top["conv2"].value[:, 3:] == -torch.inf).all()
    assert (top["conv2"].index[:, :3] >= 0).all()
    assert top["fc7"].position[:, :3].eq(0).all()


def test_saves_and_loads(small, tmp_path):
    found = top_activations(small, Noise(12), LAYERS, k=3)
    found.save(tmp_path / "top.safetensors")
    again = TopActivations.load(tmp_path / "top.safetensors")
    assert again.images == 12
    assert list(again) == list(LAYERS)
    for layer in LAYERS:
        for a, b in zip(vars(found[layer]).values(), vars(again[layer]).values(), strict=True):
            assert torch.equal(a, b)


def test_a_file_of_something_else_is_no_table(small, tmp_path):
    zfnet.save(small, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.safetensors: not a table of top activations"):
        TopActivations.load(tmp_path / "model.safetensors")


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3, 64, 64)

    def __len__(self):
        return 1


def test_errors(small):
    for k in (0, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            top_activations(small, Noise(3), k=k)
    with pytest.raises(ValueError, match="batch must be"):
        top_activations(small, Noise(3), batch=0)
    with pytest.raises(ValueError, match="items must be tensors .*, got dict"):
        top_activations(small, [{"x": torch.zeros(3, 64, 64)}])
    with pytest.raises(ValueError, match=r"x \(1, 3, 8, 8\) does not fit the network at conv2"):
        top_activations(small, Noise(3, size=8))
    with pytest.raises(ValueError, match="Stream has no length or no index"):
        top_activations(small, Stream())
    with pytest.raises(ValueError, match="empty"):
        top_activations(small, Noise(0))
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        top_activations(small, Noise(3), ("conv9",))
    with pytest.raises(ValueError, match="groups has 2"):
        top_activations(small, Noise(3), ("conv1",), groups=[0, 1])


def test_memory_does_not_grow_with_the_number_of_images(small, monkeypatch):
    """Between batches there is the table and a bounded number of columns: as much after 8 batches as after 40."""
    import gc

    monkeypatch.setattr(search, "COLUMNS", 16)

    def alive(n: int) -> int:
        sizes = []

        def watched(batches, **_):
            for batch in batches:
                yield batch
                gc.collect()
                sizes.append(
                    sum(
                        o.untyped_storage().nbytes()
                        for o in gc.get_objects()
                        if type(o) is torch.Tensor
                    )
                )

        top_activations(small, Noise(n), LAYERS, k=3, batch=8, progress=watched)
        return max(sizes)

    gc.collect()
    gc.freeze()  # what is alive before the searches is not counted, and not visited after every batch
    try:
        assert alive(320) <= 1.05 * alive(64)
    finally:
        gc.unfreeze()


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 6),
    st.randoms(),
)
def test_merging_is_sorting(batches, k, levels, groups, random):
    """Batches merged one after the other, with ties and groups, against one sort by (-value, index)."""
    n = sum(batches)
    value = torch.tensor([[float(random.randrange(levels)) for _ in range(n)] for _ in range(2)])
    group_of = torch.tensor([random.randrange(groups) for _ in range(n)]) if groups else None
    index = torch.arange(n).expand(2, -1)
    parts = list(
        zip(
            *(t.split(batches, 1) for t in (value, index, index[:, :, None].expand(-1, -1, 2))),
            strict=True,
        )
    )
    best = parts[:1]
    for part in parts[1:]:
        best = [search.merge([*best, part], k, group_of)]
    found = search.as_top(search.merge(best, k, group_of), k)
    for c in range(2):
        expected, seen = [], set()
        for i in sorted(range(n), key=lambda i: (-value[c, i], i)):
            group = i if group_of is None else int(group_of[i])
            expected += [] if group in seen else [i]
            seen.add(group)
        expected = expected[:k]
        assert found.index[c].tolist() == expected + [-1] * (k - len(expected))
        assert found.value[c, : len(expected)].tolist() == value[c, expected].tolist()
        assert found.position[c, : len(expected), 1].tolist() == expected


def test_each_image_passes_once_and_only_as_far_as_wanted(small, monkeypatch):
    monkeypatch.setattr(forward, "max_pool", None)  # no switches
    with counting(small) as passed:
        top_activations(small, Noise(20), ("conv3", "conv1"), k=2, batch=8)
    # A ReLU works in place, not through its module.
    names = ("conv1", "pool1", "conv2", "pool2", "conv3")
    assert passed == dict.fromkeys(names, 24)  # three full batches


def test_a_network_of_another_library_is_listed_once(small, monkeypatch):
    calls = []
    original = forward.graph_steps
    monkeypatch.setattr(
        forward, "graph_steps", lambda *args, **k: calls.append(args) or original(*args, **k)
    )
    foreign = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 4, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3)
    )
    kept = [torch.stack([Noise(30)[i] for i in range(j, j + 5)]) for j in range(0, 30, 5)]
    before = [x.clone() for x in kept]
    found = top_activations(
        foreign, Noise(30), ("conv1", "conv2"), k=3, batch=5, progress=lambda _, **__: kept
    )
    assert len(calls) == 1
    # Inputs are never overwritten.
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
    for channel, rows in enumerate(brute_force(foreign, Noise(30), "conv2", 3)):
        assert found["conv2"].index[channel].tolist() == [i for _, i, _ in rows]


def test_merging_is_rare(small, monkeypatch):
    merge, columns = search.merge, []
    monkeypatch.setattr(
        search, "merge", lambda parts, *rest: columns.append(len(parts)) or merge(parts, *rest)
    )
    top_activations(small, Noise(600), "conv1", k=9, batch=8)
    # Batches of 8: 256 columns, the table and 256, the table and the remaining 88.
    assert columns == [32, 33, 12]


@pytest.mark.parametrize("by", ["data", "progress"])
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(30)]])
def test_an_interrupted_search_continues(small, tmp_path, monkeypatch, by, groups):
    monkeypatch.setattr(search, "WRITE_EVERY", 0.0)
    whole = top_activations(small, Noise(30), LAYERS, k=4, batch=4, groups=groups)

    def broken(batches, **_):
        for number, batch in enumerate(batches):
            if number == 5 and by == "progress":
                raise OSError("unplugged")
            yield batch

    search_ = {"k": 4, "batch": 4, "groups": groups, "state": tmp_path / "s"}
    with pytest.raises(OSError, match="unplugged"):
        top_activations(
            small, Noise(30, fail=22 if by == "data" else -1), LAYERS, progress=broken, **search_
        )
    # What was found so far can be looked at.
    assert TopActivations.load(tmp_path / "s").images == 20
    dataset = Noise(30)
    with counting(small) as passed:
        assert same(top_activations(small, dataset, LAYERS, **search_), whole)
    assert passed["conv1"] == 12  # three batches of four, the last one filled up
    assert dataset.read == 1 + 10  # the first shows that it is the same data
    with counting(small) as passed:
        assert same(top_activations(small, dataset, LAYERS, **search_), whole)
    assert not passed  # a finished search is returned


class Killer(Noise):
    def __getitem__(self, i):
        if i == self.fail:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


def test_a_killed_search_continues(small, tmp_path):
    pytest.importorskip("fcntl", reason="needs POSIX signals")
    code = (
        "import sys; from tests.test_top import *; search.WRITE_EVERY = 0\n"
        "top_activations(small_net(), Killer(20, fail=13), LAYERS, k=3, batch=4, state=sys.argv[1])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    with counting(small) as passed:
        found = top_activations(small, Noise(20), LAYERS, k=3, batch=4, state=tmp_path / "s")
    assert passed["conv1"] == 8
    assert same(found, top_activations(small, Noise(20), LAYERS, k=3, batch=4))


def test_a_state_of_another_search_is_refused(small, tmp_path):
    path = tmp_path / "s"
    top_activations(small, Noise(6), ("conv1",), k=2, state=path)
    other = small_net()
    with torch.no_grad():
        other.conv1.bias[0] += 1
    for name, arguments, options in (
        ("weights", (other, Noise(6), ("conv1",), 2), {}),
        ("layers", (small, Noise(6), ("conv1", "conv2"), 2), {}),
        ("k: 2 there, 3 here", (small, Noise(6), ("conv1",), 3), {}),
        ("groups", (small, Noise(6), ("conv1",), 2), {"groups": [0, 0, 1, 2, 3, 4]}),
        ("images: 6 there, 7 here", (small, Noise(7), ("conv1",), 2), {}),
        ("data", (small, Noise(6, digest="others"), ("conv1",), 2), {}),
        ("data", (small, Noise(6, size=80), ("conv1",), 2), {}),
    ):
        with pytest.raises(
            CheckpointError, match=rf"s: the state of another search \([^;]*{name}"
        ) as error:
            top_activations(*arguments, state=path, **options)
        assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="s: "):
        top_activations(small, Noise(6), ("conv1",), 2, state=path)


def test_the_global_random_state_is_left_alone(small):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert list(top_activations(small, Noise(3), "conv3", k=1)) == ["conv3"]
    assert torch.equal(torch.rand(1), expected)


def test_the_state_of_other_items_of_a_data_set_is_refused(small, tmp_path):
    data, state = (
        [torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(30)],
        tmp_path / "s",
    )
    first = top_activations(small, Subset(data, [0, 1, 2, 3]), ("conv1",), k=2, state=state)
    again = top_activations(small, Subset(data, [0, 1, 2, 3]), ("conv1",), k=2, state=state)
    assert same(first, again)
    with pytest.raises(CheckpointError, match="another search"):
        top_activations(small, Subset(data, [0, 20, 21, 22]), ("conv1",), k=2, state=state)


def test_groups_and_items_that_do_not_fit_are_named(small):
    images = [torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)]
    for groups in ([0.2, 0.7], ["a", "b"]):
        with pytest.raises(ValueError, match="whole numbers"):
            top_activations(small, images, ("conv1",), groups=groups)
    with pytest.raises(ValueError, match=r"several sizes: \(3, 64, 64\), \(3, 72, 72\)"):
        top_activations(small, [torch.zeros(3, 64, 64), torch.zeros(3, 72, 72)], ("conv1",))
