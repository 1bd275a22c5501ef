"""The strongest activations of every feature map over a data set, in one pass and constant memory (Fig. 2)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from zfnet.activations import Step, UnknownLayer, apply, as_names, chain, check_input, evaluating, fitting, steps_up_to
from zfnet.checkpoint import CheckpointError, read_tensors, sha256, write_tensors
from zfnet.data import silent
from zfnet.model import device_of
from zfnet.parallel import ALONE, Team

COLUMNS = 256  # merging sorts k + max(k, COLUMNS) values a map, so it costs little per image at any k
LOOKED = 16  # items by which a data set is known that has no digest
EVERY = 30.0  # seconds between two writes of the state: what an interruption can cost

Found = tuple[Tensor, ...]  # a layer's maxima: value (C, n), image (C, n), position (C, n, 2)


@dataclass(frozen=True, eq=False)
class Top:
    """The k strongest activations of each of a layer's C maps, strongest first, at most one per image.

    `value` (C, k) float32, -inf where there were fewer images; `index` (C, k) int64 into the data set, -1 there; `position`
    (C, k, 2) int64 as (row, column) in the map, 0 there. `certain` (C,) bool: the row is the float32 one as far as can be
    seen; always true of a search in float32, see `top_activations` for bfloat16.
    """

    value: Tensor
    index: Tensor
    position: Tensor
    certain: Tensor


@dataclass(frozen=True, eq=False)
class TopActivations(Mapping):
    """A `Top` for each layer: `s["conv5"].value`. `images` says how many images were searched."""

    layers: dict[str, Top]
    images: int

    def __getitem__(self, layer: str) -> Top:
        if layer not in self.layers:
            raise UnknownLayer(f"no layer {layer!r} was searched; there are {', '.join(self.layers)}")
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def save(self, path: str | Path, **about: object) -> None:
        """Write to a safetensors file, with more metadata if wanted; `TopActivations.load` reads it."""
        tensors = {f"{layer}.{name}": t for layer, top in self.items() for name, t in vars(top).items()}
        write_tensors(path, tensors, {"layers": list(self), "images": self.images, **about})

    @staticmethod
    def load(path: str | Path) -> TopActivations:
        """Read a file of `save`, or what a search has found so far from its state. Raises CheckpointError, naming the file."""
        tensors, meta = read_tensors(path)
        parts = ("value", "index", "position", "certain")
        try:
            return TopActivations({n: Top(*(tensors[f"{n}.{p}"] for p in parts)) for n in meta["layers"]}, meta["images"])
        except KeyError as missing:
            raise CheckpointError(f"{path}: not a table of top activations: it has no {missing}") from None


def top_activations(
    model: nn.Module,
    dataset: Dataset,
    layers: str | Sequence[str] = ("conv1", "conv2", "conv3", "conv4", "conv5"),
    k: int = 9,
    *,
    batch: int = 64,
    workers: int = 0,
    groups: Sequence[int] | np.ndarray | Tensor | None = None,
    state: str | Path | None = None,
    precision: str = "float32",
    width: int = 4,
    team: Team = ALONE,
    progress: Callable = silent,
) -> TopActivations:
    """Find each feature map's k strongest activations over a data set: the images, and where in the map.

    Items are preprocessed (3, H, W) tensors or (tensor, label). An image counts once, by its strongest position; ties go to the
    lower index and the earlier position. `groups` (N,) allows at most one image of a group, for crops of one photograph.
    Activations are rectified maps before pooling. Memory does not grow with the data set; `workers` processes decode.

    `state` is a file from which an interrupted search continues, and a finished one is returned. A `team` shares the batches,
    and each of its processes gets the table of one.

    `precision="bfloat16"` searches so for width * k candidates a map, and passes these images (with groups, all images of
    theirs) again in float32, which gives the table. With v the k-th float32 value, m the smallest candidate's in bfloat16, and
    e the largest amount by which bfloat16 underrates an image that was left out, a row is that of a float32 search, up to the
    rounding of other batches, if v > m + e. e is not known: `certain` takes the largest error seen among the map's candidates.

    Raises UnknownLayer; CheckpointError for a state that is damaged or of another search, saying what differs; ValueError
    for a wrong option, an empty data set, or items that do not fit the network. Zeiler & Fergus, section 4.
    """
    layers = as_names(layers)
    if not layers:
        raise ValueError("no layers given")
    for name, number in (("k", k), ("width", width), ("batch", batch)):
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {number}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(f"{type(dataset).__name__} has no length or no index: the table names images by their index")
    size = len(dataset)  # pyright: ignore[reportArgumentType]
    if size == 0:
        raise ValueError("the data set is empty")
    if groups is not None and len(groups) != size:
        raise ValueError(f"groups has {len(groups)} entries for {size} images")
    device = device_of(model)
    group_of = None if groups is None else _whole(groups, device)
    search = _Search(model, dataset, layers, group_of, min(batch, size), workers, team, progress)
    final = _State.open(state, search, k=k, precision=precision, width=width if precision == "bfloat16" else None)
    apart = size if group_of is None else len(group_of.unique())
    if precision == "float32" or apart <= k * width:  # every image would be a candidate
        return search.run(range(size), k, final)
    if found := final.read():
        return found
    beside = [final.beside("candidates"), final.beside("exact")]
    rough = search.run(range(size), k * width, beside[0], half=True)
    chosen = {layer: _Chosen(len(top.value), _members(top.index.to(device), group_of)) for layer, top in rough.items()}
    union = torch.cat([of.images for of in chosen.values()]).unique().tolist()  # ascending, for the ties
    exact = search.run(union, k * width, beside[1], chosen=chosen)
    found = TopActivations({layer: _settle(rough[layer], exact[layer], k) for layer in layers}, size)
    if team.leads:
        final.write(found)
        for passed in beside:
            if passed.path:
                passed.path.unlink(missing_ok=True)
    return found


@dataclass(frozen=True, eq=False)
class _Chosen:
    """What is passed again for a layer: its number of maps, and the images."""

    maps: int
    images: Tensor


@dataclass(frozen=True, eq=False)
class _State:
    """The file in which a search keeps itself, if any, and what makes it this search and no other."""

    path: Path | None
    about: dict

    @staticmethod
    def open(path: str | Path | None, search: _Search, **options: object) -> _State:
        if path is None:
            return _State(None, {})
        data, groups = _identity(search.dataset), search.group_of
        size = len(search.dataset)  # pyright: ignore[reportArgumentType]
        # An item shows the size and the preprocessing, which a digest of files does not; without one, some must do.
        looked = [0] if data else range(0, size, -(-size // LOOKED))
        about = {
            "weights": sha256({n: t.cpu() for n, t in search.model.state_dict().items()}, {"modules": str(search.model)}),
            "layers": list(search.layers), **options,
            "groups": None if groups is None else sha256({"groups": groups.cpu()}, {}),
            "images": size,
            "data": sha256({str(i): as_tensor(search.dataset[i]) for i in looked}, {"digest": data}),
        }  # fmt: skip
        return _State(Path(path), about)

    def beside(self, name: str) -> _State:
        return replace(self, path=self.path and self.path.with_name(f"{self.path.name}.{name}"))

    def read(self) -> TopActivations | None:
        """What was found so far, or None where there is no file. Raises CheckpointError."""
        if self.path is None or not self.path.exists():
            return None
        there = read_tensors(self.path)[1].get("search", {})
        names = [name for name in self.about if name not in there or self.about[name] != there[name]]
        if names:
            shown = "; ".join(f"{n}: {str(there.get(n))[:48]} there, {str(self.about[n])[:48]} here" for n in names)
            raise CheckpointError(f"{self.path}: the state of another search ({shown}); name another file, or remove it")
        return TopActivations.load(self.path)

    def write(self, found: TopActivations) -> None:
        if self.path:
            found.save(self.path, search=self.about)


@dataclass(frozen=True, eq=False)
class _Search:
    """What is searched, and how it is fed to the network."""

    model: nn.Module
    dataset: Dataset
    layers: tuple[str, ...]
    group_of: Tensor | None
    batch: int
    workers: int
    team: Team
    progress: Callable

    def run(
        self, images: Sequence[int], k: int, state: _State, *, half: bool = False, chosen: dict[str, _Chosen] | None = None
    ) -> TopActivations:
        """One pass over some images, in ascending order; with `chosen`, each only up to the last layer that chose it.

        Of a team, each process passes its share of the batches, whole ones, so that they are rounded as a single one's are.
        """
        if self.team.size == 1:
            return self._pass(images, k, state, half, chosen)
        found = self.team.gather(state.read())[0]  # asked by all before one of them writes it
        if found and found.images == len(images):
            return found
        batches = self.team.share([images[start : start + self.batch] for start in range(0, len(images), self.batch)])
        own = state.beside(f"{self.team.rank} of {self.team.size}")
        share = self._pass([i for part in batches for i in part], k, own, half, chosen) if batches else None
        shares = [other for other in self.team.gather(share) if other is not None]
        cpu = torch.device("cpu")
        group_of = None if self.group_of is None else self.group_of.to(cpu)
        layers = {}
        for layer in self.layers:
            maxima = _ordered([_found(other[layer], cpu) for other in shares])
            layers[layer] = _top(_merge([maxima], k, group_of), k)
        found = TopActivations(layers, len(images))
        if self.team.leads:
            state.write(found)
        if own.path:
            own.path.unlink(missing_ok=True)
        return found

    def _pass(
        self, images: Sequence[int], k: int, state: _State, half: bool, chosen: dict[str, _Chosen] | None
    ) -> TopActivations:
        """The same by this process alone."""
        device = device_of(self.model)
        found = state.read()
        done = found.images if found else 0
        if found and done == len(images):
            return found
        kept: dict[str, list[Found]] = {layer: [_found(found[layer], device)] if found else [] for layer in self.layers}
        if chosen and not found:  # a layer may meet its first image late, or in another process
            kept = {layer: [_nothing(of.maps, device)] for layer, of in chosen.items()}

        def merged() -> TopActivations:
            for layer, parts in kept.items():
                kept[layer] = [_merge(parts, k, self.group_of)]
            return TopActivations({layer: _top(parts[0], k) for layer, parts in kept.items()}, done)

        # A generator of its own: DataLoader would otherwise draw from the global random state.
        generator = torch.Generator()
        loader = DataLoader(
            self.dataset, self.batch, sampler=images[done:], num_workers=self.workers, generator=generator, collate_fn=together,
            pin_memory=device.type == "cuda",
        )  # fmt: skip
        steps: list[Step] = []
        gathered, written = 0, time.monotonic()
        for item in self.progress(loader, total=len(loader), desc="searching"):
            x = item.to(device, non_blocking=True)
            with evaluating(self.model), torch.no_grad():
                check_input(self.model, x)
                steps = steps or self.steps(x[:1], half)
                index = torch.tensor(images[done : done + len(x)], device=device)
                if len(x) < self.batch and not chosen:  # rounded otherwise, an image could overtake one that it equals
                    x = torch.cat([x, x[-1:].expand(self.batch - len(x), *x.shape[1:])])
                for layer, maxima in _maxima(steps, self.layers, x.bfloat16() if half else x, index, chosen):
                    kept[layer].append(maxima)
            done, gathered = done + len(index), gathered + len(index)
            due = state.path is not None and time.monotonic() - written >= EVERY
            if gathered >= max(k, COLUMNS) or due:
                found, gathered = merged(), 0
                if due:
                    state.write(found)
                    written = time.monotonic()
        found = merged()
        state.write(found)
        return found

    def steps(self, x: Tensor, half: bool) -> list[Step]:
        """The chain up to the highest layer, so that nothing above it is computed; for bfloat16 a copy."""
        steps = steps_up_to(chain(self.model, x), self.layers)
        if not half:
            return steps
        return [replace(step, module=copy.deepcopy(step.module).bfloat16()) for step in steps]


def as_tensor(item) -> Tensor:
    """The images of a batch or an item, which may carry labels."""
    x = item[0] if isinstance(item, (list, tuple)) else item
    if not isinstance(x, Tensor):
        raise ValueError(f"items must be tensors (3, H, W) or (tensor, label), got {type(x).__name__}")
    return x


def together(items: Sequence) -> Tensor:
    """The images of some items, which may carry labels, as a batch. Raises ValueError where they do not fit together."""
    images = [as_tensor(item) for item in items]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise ValueError(f"items of several sizes: {', '.join(map(str, sorted(shapes)))}")
    return torch.stack(images)


def _identity(dataset: Dataset) -> list | str | None:
    """What a data set says of itself: its digest, of a subset with the numbers that it takes; None where it has none."""
    if isinstance(dataset, Subset):
        whole = _identity(dataset.dataset)
        return whole and [whole, [int(i) for i in dataset.indices]]
    return getattr(dataset, "digest", None)


def _whole(groups: Sequence[int] | np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Groups as int64. Raises ValueError."""
    try:
        found = torch.as_tensor(groups, device=device)
    except (TypeError, ValueError):
        found = torch.zeros((), dtype=torch.float32)
    if found.ndim != 1 or found.is_floating_point() or found.is_complex():
        raise ValueError("groups must be whole numbers, one for each image")
    return found.to(torch.int64)


def _maxima(
    steps: list[Step], layers: Sequence[str], x: Tensor, index: Tensor, chosen: dict[str, _Chosen] | None
) -> Iterator[tuple[str, Found]]:
    """Pass x (B, C, H, W) through the steps and yield each layer's maxima; every map is dropped when it has been read.

    The images are the first ones of the batch, as many as `index` has; what follows them fills it up.
    """
    above = [step.layer for step in steps if step.layer and step.layer in layers]
    signal = x.contiguous(memory_format=torch.channels_last)  # the faster layout
    for step in steps:
        with fitting(x, step):
            own = signal.data_ptr() != x.data_ptr()  # may be overwritten
            signal = signal.relu_() if own and isinstance(step.module, nn.ReLU) else apply(step.module, signal)
        if step.layer not in layers:
            continue
        yield above.pop(0), _strongest(signal[: len(index)], index)
        if chosen and above:
            on = torch.isin(index, torch.cat([chosen[layer].images for layer in above]))
            if not on.any():
                return
            if not on.all():
                signal, index = signal[: len(on)][on], index[on]


def _strongest(signal: Tensor, index: Tensor) -> Found:
    """The first maximum in reading order of each map (B, C, H, W), or of each unit (B, C), as (C, B)."""
    maps = (signal if signal.ndim == 4 else signal[:, :, None, None]).permute(0, 2, 3, 1)  # as channels_last lies in memory
    value, row = maps.amax(2).max(1)  # (B, C); max keeps the first
    line = maps.gather(1, row[:, None, None].expand(-1, 1, maps.shape[2], -1))[:, 0]  # (B, W, C)
    position = torch.stack([row.T, line.max(1).indices.T], -1)
    return value.T.float(), index.expand(len(position), -1), position


def _ordered(parts: list[Found]) -> Found:
    """The maxima of several processes as of one, the earlier image first: ties go to it."""
    value, index, position = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    order = index.argsort(1)
    return value.gather(1, order), index.gather(1, order), position.gather(1, order[:, :, None].expand(-1, -1, 2))


def _merge(parts: list[Found], k: int, group_of: Tensor | None) -> Found:
    """Keep the k strongest. The sort is stable and earlier images stand first, so ties go to the lower index."""
    value, index, position = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    if not value.shape[1]:
        return value, index, position
    value, order = value.sort(dim=1, descending=True, stable=True)
    if group_of is not None:
        group, by_group = group_of[index.gather(1, order)].sort(dim=1, stable=True)
        again = nn.functional.pad(group[:, 1:] == group[:, :-1], (1, 0))  # a stronger one of the group stands before it
        again = torch.zeros_like(again).scatter(1, by_group, again)
        k = min(k, int((~again[0]).sum()))  # below k, every map has met the same groups
        first = again.byte().sort(dim=1, stable=True).indices
        value, order = value.gather(1, first), order.gather(1, first)
    value, order = value[:, :k], order[:, :k]
    return value, index.gather(1, order), position.gather(1, order[:, :, None].expand(-1, -1, 2))


def _members(index: Tensor, group_of: Tensor | None) -> Tensor:
    """The images themselves, or all images of their groups: a group's strongest may be another one in float32."""
    return index.unique() if group_of is None else torch.isin(group_of, group_of[index]).nonzero()[:, 0]


def _settle(rough: Top, exact: Top, k: int) -> Top:
    """The k strongest in float32, and whether they are certain; both tables hold width * k."""
    index, order = rough.index.sort(dim=1)
    place = torch.searchsorted(index, exact.index).clamp_max(index.shape[1] - 1)
    error = (exact.value - rough.value.gather(1, order).gather(1, place)).abs()
    error = error.where(index.gather(1, place) == exact.index, 0.0).amax(1)
    certain = exact.value[:, k - 1] > rough.value[:, -1] + error
    return Top(exact.value[:, :k], exact.index[:, :k], exact.position[:, :k], certain)


def _top(found: Found, k: int) -> Top:
    """Filled up to k columns where there were fewer images, on the CPU."""
    value, index, position = found
    missing, pad = k - value.shape[1], nn.functional.pad
    return Top(
        pad(value, (0, missing), value=-torch.inf).cpu(),
        pad(index, (0, missing), value=-1).cpu(),
        pad(position, (0, 0, 0, missing)).cpu(),
        torch.ones(len(value), dtype=torch.bool),
    )


def ranking(value: Tensor, position: Tensor, k: int, *, least: bool = False, group_of: Tensor | None = None) -> Top:
    """Rank a table of N images by C units: value (N, C) and position (N, C, 2) to the k strongest, or weakest, of each unit.

    Ties go to the lower index; `group_of` (N,) allows at most one image of a group. Raises ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    sign = -1 if least else 1
    index = torch.arange(len(value), device=value.device).expand(value.shape[1], -1)
    top = _top(_merge([(sign * value.T, index, position.transpose(0, 1))], k, group_of), k)
    return replace(top, value=torch.where(top.index < 0, -torch.inf, sign * top.value))


def _nothing(maps: int, device: torch.device) -> Found:
    """The maxima of no image."""
    empty = torch.zeros(maps, 0, dtype=torch.int64, device=device)
    return empty.float(), empty, empty[:, :, None].expand(-1, -1, 2)


def _found(top: Top, device: torch.device) -> Found:
    """The inverse of `_top`."""
    n = int((top.index[0] >= 0).sum())
    return tuple(t[:, :n].to(device) for t in (top.value, top.index, top.position))
