"""The streaming search against sorting everything at once."""

import pytest
import torch
from torch.utils.data import Dataset

import zfnet
from tests.conftest import random_he
from zfnet.activations import UnknownLayer
from zfnet.top import TopActivations, top_activations


class Noise(Dataset):
    """Images made on demand; some are exact copies of earlier ones, so that there are ties."""

    def __init__(self, n: int, labelled: bool = False, size: int = 64):
        self.n, self.labelled, self.size, self.read = n, labelled, size, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read += 1
        x = torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(i % 11))
        return (x, i) if self.labelled else x


@pytest.fixture(scope="module")
def small():
    return random_he(zfnet.zfnet(4, norm="none", maps=(6, 7, 8, 8, 5), fc=8, size=64))


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def brute_force(model, dataset, layer, k, groups=None):
    """Sort (value, -index) of every image's strongest position, slowly."""
    maps = torch.cat([zfnet.trace(model, dataset[i][None])[layer] for i in range(len(dataset))])
    for channel in range(maps.shape[1]):
        rows = [(float(m.max()), i, divmod(int(m.argmax()), m.shape[1])) for i, m in enumerate(maps[:, channel])]
        rows.sort(key=lambda row: (-row[0], row[1]))
        if groups is not None:
            seen, kept = set(), []
            for row in rows:
                if groups[row[1]] not in seen:
                    seen.add(groups[row[1]])
                    kept.append(row)
            rows = kept
        yield rows[:k]


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(30)]])
def test_equals_sorting_everything(small, batch, groups):
    dataset = Noise(30)
    found = top_activations(small, dataset, LAYERS, k=4, batch=batch, groups=groups)
    for layer in LAYERS:
        assert found[layer].position.shape == (*found[layer].value.shape, 2)
        for channel, rows in enumerate(brute_force(small, dataset, layer, 4, groups)):
            assert found[layer].index[channel].tolist() == [i for _, i, _ in rows]
            assert [tuple(p) for p in found[layer].position[channel].tolist()] == [p for _, _, p in rows]
            assert found[layer].value[channel].tolist() == pytest.approx([v for v, _, _ in rows], rel=1e-5)


def test_each_image_is_read_once_and_counts_once(small):
    dataset = Noise(25, labelled=True)
    found = top_activations(small, dataset, ("conv3",), k=9)
    assert dataset.read == 25
    assert found.images == 25
    assert all(len(set(row)) == 9 for row in found["conv3"].index.tolist())


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


def test_errors(small):
    with pytest.raises(ValueError, match="k must be"):
        top_activations(small, Noise(3), k=0)
    with pytest.raises(ValueError, match="empty"):
        top_activations(small, Noise(0))
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        top_activations(small, Noise(3), ("conv9",))
    with pytest.raises(ValueError, match="groups has 2"):
        top_activations(small, Noise(3), ("conv1",), groups=[0, 1])


def test_memory_does_not_grow_with_the_number_of_images(small):
    """What is kept between batches is the table alone: the tensors alive after 4 batches and after 40 are as large."""
    import gc

    def alive(n: int) -> int:
        sizes = []

        def watched(batches, **_):
            for batch in batches:
                yield batch
                gc.collect()
                sizes.append(sum(o.untyped_storage().nbytes() for o in gc.get_objects() if isinstance(o, torch.Tensor)))

        top_activations(small, Noise(n), LAYERS, k=3, batch=8, progress=watched)
        return sizes[-1]

    assert alive(320) <= 1.05 * alive(32)


def test_the_global_random_state_is_left_alone(small):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert list(top_activations(small, Noise(3), "conv3", k=1)) == ["conv3"]
    assert torch.equal(torch.rand(1), expected)
