"""The streaming top-k search against sorting all activations."""

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
from zfnet.graph import network as graph_network
from zfnet.ranking import TopActivations
from zfnet.top import top_activations


class NoiseImages(Dataset):
    """Random images that repeat after `repeat` items, so that there are ties; item `fail` raises."""

    def __init__(
        self,
        n: int,
        labeled: bool = False,
        size: int = 64,
        repeat: int = 11,
        fail: int = -1,
        digest: str = "noise",
    ):
        self.n, self.labeled, self.size, self.repeat, self.fail, self.digest = (
            n,
            labeled,
            size,
            repeat,
            fail,
            digest,
        )
        self.reads = 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.fail:
            raise OSError("unplugged")
        self.reads += 1
        x = torch.randn(
            3, self.size, self.size, generator=torch.Generator().manual_seed(i % self.repeat)
        )
        return (x, i) if self.labeled else x


def small_net(**options):
    return random_he(
        zfnet.zfnet(
            4, **{"norm": "none", "channels": (6, 7, 8, 8, 5), "fc_units": 8, "size": 64} | options
        )
    )


@pytest.fixture(scope="module")
def model():
    return small_net()


@contextmanager
def count_images(model):
    """Count the images that each module processes."""
    counts = Counter()
    hooks = [
        module.register_forward_hook(lambda _, x, y, name=name: counts.update({name: len(x[0])}))
        for name, module in model.named_children()
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def equal_tables(a, b):
    """Return whether two searches have bit-identical results."""
    pairs = [(vars(a[layer]), vars(b[layer])) for layer in a]
    return (
        list(a) == list(b)
        and a.images == b.images
        and all(torch.equal(x[n], y[n]) for x, y in pairs for n in x)
    )


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def brute_force(model, dataset, layer, k, groups=None):
    """Sort (value, -index) of the strongest position of every image."""
    maps = torch.cat([zfnet.trace(model, dataset[i][None])[layer] for i in range(len(dataset))])
    for channel in range(maps.shape[1]):
        rows = [
            (float(m.max()), i, divmod(int(m.argmax()), m.shape[1]))
            for i, m in enumerate(maps[:, channel])
        ]
        rows.sort(key=lambda row: (-row[0], row[1]))
        if groups is not None:
            used_groups, unique_rows = set(), []
            for row in rows:
                if groups[row[1]] not in used_groups:
                    used_groups.add(groups[row[1]])
                    unique_rows.append(row)
            rows = unique_rows
        yield rows[:k]


@pytest.mark.reference
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(30)]])
def test_search_equals_sorting_all_activations(model, batch, groups):
    dataset = NoiseImages(30)
    top = top_activations(model, dataset, LAYERS, k=4, batch=batch, groups=groups)
    for layer in LAYERS:
        assert top[layer].position.shape == (*top[layer].value.shape, 2)
        for channel, rows in enumerate(brute_force(model, dataset, layer, 4, groups)):
            assert top[layer].index[channel].tolist() == [i for _, i, _ in rows]
            assert [tuple(p) for p in top[layer].position[channel].tolist()] == [
                p for _, _, p in rows
            ]
            assert top[layer].value[channel].tolist() == pytest.approx(
                [v for v, _, _ in rows], rel=1e-5
            )


@pytest.mark.reference
def test_equal_images_keep_their_order_in_batches_of_any_size():
    """A partial last batch must not round differently, or its images would change the order of ties."""
    model = random_he(zfnet.zfnet(10, fc_units=64, size=96))
    top = top_activations(
        model,
        [torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))] * 17,
        LAYERS,
        batch=8,
    )
    for layer in LAYERS:
        assert (top[layer].index == torch.arange(9)).all(), layer


@pytest.mark.reference
def test_each_image_is_read_once_and_counts_once(model):
    dataset = NoiseImages(25, labeled=True)
    top = top_activations(model, dataset, ("conv3",), k=9)
    assert dataset.reads == 25
    assert top.images == 25
    assert all(len(set(row)) == 9 for row in top["conv3"].index.tolist())


@pytest.mark.reference
def test_fewer_images_than_k_are_marked(model):
    top = top_activations(model, NoiseImages(3), ("conv2", "fc7"), k=5)
    assert top["conv2"].value.shape == (7, 5)
    assert (top["conv2"].index[:, 3:] == -1).all()
    assert (top["conv2"].value[:, 3:] == -torch.inf).all()
    assert (top["conv2"].index[:, :3] >= 0).all()
    assert top["fc7"].position[:, :3].eq(0).all()


def test_tables_are_saved_and_loaded(model, tmp_path):
    top = top_activations(model, NoiseImages(12), LAYERS, k=3)
    top.save(tmp_path / "top.safetensors")
    loaded = TopActivations.load(tmp_path / "top.safetensors")
    assert loaded.images == 12
    assert list(loaded) == list(LAYERS)
    for layer in LAYERS:
        for a, b in zip(vars(top[layer]).values(), vars(loaded[layer]).values(), strict=True):
            assert torch.equal(a, b)


def test_checkpoint_is_not_accepted_as_table(model, tmp_path):
    zfnet.save(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.safetensors: not a table of top activations"):
        TopActivations.load(tmp_path / "model.safetensors")


class StreamDataset(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3, 64, 64)

    def __len__(self):
        return 1


def test_invalid_arguments_are_rejected(model):
    for k in (0, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            top_activations(model, NoiseImages(3), k=k)
    with pytest.raises(ValueError, match="batch must be"):
        top_activations(model, NoiseImages(3), batch=0)
    with pytest.raises(ValueError, match="items must be tensors .*, got dict"):
        top_activations(model, [{"x": torch.zeros(3, 64, 64)}])
    with pytest.raises(ValueError, match=r"x \(1, 3, 8, 8\) does not fit the network at conv2"):
        top_activations(model, NoiseImages(3, size=8))
    with pytest.raises(ValueError, match="StreamDataset has no length or no index"):
        top_activations(model, StreamDataset())
    with pytest.raises(ValueError, match="empty"):
        top_activations(model, NoiseImages(0))
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        top_activations(model, NoiseImages(3), ("conv9",))
    with pytest.raises(ValueError, match="groups has 2"):
        top_activations(model, NoiseImages(3), ("conv1",), groups=[0, 1])


def test_memory_does_not_grow_with_the_number_of_images(model, monkeypatch):
    """Memory between batches is the same after 8 and after 40 batches."""
    import gc

    monkeypatch.setattr(search, "COLUMNS", 16)

    def peak_bytes(n: int) -> int:
        sizes = []

        def measure(batches, **_):
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

        top_activations(model, NoiseImages(n), LAYERS, k=3, batch=8, progress=measure)
        return max(sizes)

    gc.collect()
    gc.freeze()  # exclude existing objects
    try:
        assert peak_bytes(320) <= 1.05 * peak_bytes(64)
    finally:
        gc.unfreeze()


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 6),
    st.randoms(),
)
def test_merging_equals_sorting(batches, k, levels, groups, random):
    """Merge batches one by one, with ties and groups, and compare with one sort by (-value, index)."""
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
    top = search.as_top(search.merge(best, k, group_of), k)
    for c in range(2):
        expected, used_groups = [], set()
        for i in sorted(range(n), key=lambda i: (-value[c, i], i)):
            group = i if group_of is None else int(group_of[i])
            expected += [] if group in used_groups else [i]
            used_groups.add(group)
        expected = expected[:k]
        assert top.index[c].tolist() == expected + [-1] * (k - len(expected))
        assert top.value[c, : len(expected)].tolist() == value[c, expected].tolist()
        assert top.position[c, : len(expected), 1].tolist() == expected


def test_each_image_is_processed_once_up_to_the_highest_layer(model, monkeypatch):
    monkeypatch.setattr(forward, "max_pool", None)  # switches are not computed
    with count_images(model) as counts:
        top_activations(model, NoiseImages(20), ("conv3", "conv1"), k=2, batch=8)
    # ReLUs are applied in place, not through their modules.
    names = ("conv1", "pool1", "conv2", "pool2", "conv3")
    assert counts == dict.fromkeys(names, 24)  # three full batches


def test_foreign_network_is_traced_once(model, monkeypatch):
    calls = []
    original = graph_network.graph_steps
    monkeypatch.setattr(
        graph_network, "graph_steps", lambda *args, **k: calls.append(args) or original(*args, **k)
    )
    foreign = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 4, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3)
    )
    batches = [torch.stack([NoiseImages(30)[i] for i in range(j, j + 5)]) for j in range(0, 30, 5)]
    originals = [x.clone() for x in batches]
    top = top_activations(
        foreign, NoiseImages(30), ("conv1", "conv2"), k=3, batch=5, progress=lambda _, **__: batches
    )
    assert len(calls) == 1
    # Inputs are never overwritten.
    assert all(torch.equal(a, b) for a, b in zip(batches, originals, strict=True))
    for channel, rows in enumerate(brute_force(foreign, NoiseImages(30), "conv2", 3)):
        assert top["conv2"].index[channel].tolist() == [i for _, i, _ in rows]


def test_merging_happens_every_256_columns(model, monkeypatch):
    merge, columns = search.merge, []
    monkeypatch.setattr(
        search,
        "merge",
        lambda parts, *arguments: columns.append(len(parts)) or merge(parts, *arguments),
    )
    top_activations(model, NoiseImages(600), "conv1", k=9, batch=8)
    # In batches of 8: 256 columns; then the table and 256; then the table and the remaining 88.
    assert columns == [32, 33, 12]


@pytest.mark.parametrize("source", ["data", "progress"])
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(30)]])
def test_interrupted_search_continues(model, tmp_path, monkeypatch, source, groups):
    monkeypatch.setattr(search, "WRITE_EVERY", 0.0)
    complete = top_activations(model, NoiseImages(30), LAYERS, k=4, batch=4, groups=groups)

    def interrupt(batches, **_):
        for number, batch in enumerate(batches):
            if number == 5 and source == "progress":
                raise OSError("unplugged")
            yield batch

    options = {"k": 4, "batch": 4, "groups": groups, "state": tmp_path / "s"}
    with pytest.raises(OSError, match="unplugged"):
        top_activations(
            model,
            NoiseImages(30, fail=22 if source == "data" else -1),
            LAYERS,
            progress=interrupt,
            **options,
        )
    # The partial table can be loaded.
    assert TopActivations.load(tmp_path / "s").images == 20
    dataset = NoiseImages(30)
    with count_images(model) as counts:
        assert equal_tables(top_activations(model, dataset, LAYERS, **options), complete)
    assert counts["conv1"] == 12  # three batches of four, with a padded last batch
    assert dataset.reads == 1 + 10  # reading item 0 checks that the data are the same
    with count_images(model) as counts:
        assert equal_tables(top_activations(model, dataset, LAYERS, **options), complete)
    assert not counts  # a finished search is loaded


class KillingImages(NoiseImages):
    def __getitem__(self, i):
        if i == self.fail:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


def test_killed_search_continues(model, tmp_path):
    pytest.importorskip("fcntl", reason="needs POSIX signals")
    code = (
        "import sys; from tests.test_top import *; search.WRITE_EVERY = 0\n"
        "top_activations(small_net(), KillingImages(20, fail=13), LAYERS, k=3, batch=4, state=sys.argv[1])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")], cwd=ROOT, check=False
    )
    assert process.returncode == -signal.SIGKILL
    with count_images(model) as counts:
        top = top_activations(model, NoiseImages(20), LAYERS, k=3, batch=4, state=tmp_path / "s")
    assert counts["conv1"] == 8
    assert equal_tables(top, top_activations(model, NoiseImages(20), LAYERS, k=3, batch=4))


def test_state_of_another_search_is_rejected(model, tmp_path):
    path = tmp_path / "s"
    top_activations(model, NoiseImages(6), ("conv1",), k=2, state=path)
    other = small_net()
    with torch.no_grad():
        other.conv1.bias[0] += 1
    for name, arguments, options in (
        ("weights", (other, NoiseImages(6), ("conv1",), 2), {}),
        ("layers", (model, NoiseImages(6), ("conv1", "conv2"), 2), {}),
        ("k: 2 there, 3 here", (model, NoiseImages(6), ("conv1",), 3), {}),
        ("groups", (model, NoiseImages(6), ("conv1",), 2), {"groups": [0, 0, 1, 2, 3, 4]}),
        ("images: 6 there, 7 here", (model, NoiseImages(7), ("conv1",), 2), {}),
        ("data", (model, NoiseImages(6, digest="others"), ("conv1",), 2), {}),
        ("data", (model, NoiseImages(6, size=80), ("conv1",), 2), {}),
    ):
        with pytest.raises(
            CheckpointError, match=rf"s: the state of another search \([^;]*{name}"
        ) as error:
            top_activations(*arguments, state=path, **options)
        assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="s: "):
        top_activations(model, NoiseImages(6), ("conv1",), 2, state=path)


def test_global_random_state_is_preserved(model):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert list(top_activations(model, NoiseImages(3), "conv3", k=1)) == ["conv3"]
    assert torch.equal(torch.rand(1), expected)


def test_state_of_another_subset_is_rejected(model, tmp_path):
    data, state = (
        [torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(30)],
        tmp_path / "s",
    )
    first = top_activations(model, Subset(data, [0, 1, 2, 3]), ("conv1",), k=2, state=state)
    second = top_activations(model, Subset(data, [0, 1, 2, 3]), ("conv1",), k=2, state=state)
    assert equal_tables(first, second)
    with pytest.raises(CheckpointError, match="another search"):
        top_activations(model, Subset(data, [0, 20, 21, 22]), ("conv1",), k=2, state=state)


def test_wrong_groups_and_image_sizes_are_rejected(model):
    images = [torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)]
    for groups in ([0.2, 0.7], ["a", "b"]):
        with pytest.raises(ValueError, match="whole numbers"):
            top_activations(model, images, ("conv1",), groups=groups)
    with pytest.raises(ValueError, match=r"several sizes: \(3, 64, 64\), \(3, 72, 72\)"):
        top_activations(model, [torch.zeros(3, 64, 64), torch.zeros(3, 72, 72)], ("conv1",))
