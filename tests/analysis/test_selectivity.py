"""AUC against scikit-learn and counted pairs; selection of one informative unit among noise."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from zfnet.analysis.selectivity import auc, best_unit, permute_labels


def test_auc_by_hand():
    values = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    positive = torch.tensor([True, False, True, False])
    # The second unit ranks two of four pairs correctly, and ties two.
    assert auc(values, positive).tolist() == [1.0, 0.75]
    assert auc(values, ~positive).tolist() == [0.0, 0.25]


def test_auc_equals_scikit_learn_with_ties_and_many_labelings():
    rng = np.random.default_rng(0)
    values, positive = rng.integers(0, 6, (40, 5)).astype(np.float32), rng.random((7, 40)) < 0.3
    result = auc(torch.from_numpy(values), torch.from_numpy(positive))
    assert result.shape == (7, 5)
    for labeling, row in zip(positive, result, strict=True):
        assert row.tolist() == pytest.approx([roc_auc_score(labeling, v) for v in values.T])
    for wrong in (torch.zeros(40), torch.ones(40), torch.ones(39)):
        with pytest.raises(ValueError, match="positive and negative images among 40"):
            auc(torch.from_numpy(values), wrong.bool())


def test_best_unit_finds_a_selective_unit_and_held_out_auc_is_unbiased():
    rng = torch.Generator().manual_seed(0)
    positive = torch.arange(60) % 2 == 0
    half = torch.arange(60) < 30
    noise = torch.randn(60, 300, generator=rng)
    informative = noise.clone()
    informative[:, 123] += 3 * positive
    result = best_unit(informative, positive, half)
    assert result.unit.tolist() == [123, 123]
    assert result.held_out_auc.min() > 0.9
    for direction, (selection, held_out) in enumerate(((half, ~half), (~half, half))):
        assert (
            result.selection_auc[direction]
            == auc(informative[selection], positive[selection]).max()
        )
        assert result.held_out_auc[direction] == auc(informative[held_out], positive[held_out])[123]
    labels = torch.stack([positive[torch.randperm(60, generator=rng)] for _ in range(200)])
    chance = best_unit(noise, labels, half)
    assert chance.unit.shape == chance.held_out_auc.shape == (200, 2)
    assert chance.selection_auc.mean() > 0.75  # the best of 300 random units
    # On the other half, these units are at chance.
    assert chance.held_out_auc.mean() == pytest.approx(0.5, abs=0.03)


def test_labels_are_permuted_within_groups_only():
    generator = torch.Generator().manual_seed(0)
    groups = torch.tensor([2, 0, 2, 1, 0, 0, 2, 1])
    positive = torch.tensor([1, 1, 0, 1, 0, 0, 0, 1]).bool()
    result = permute_labels(positive, groups, 600, generator)
    for g in range(3):
        assert (result[:, groups == g].sum(1) == positive[groups == g].sum()).all()
    # Positions within a group are equally likely.
    for i, share in enumerate((1 / 3, 1 / 3, 1 / 3, 1, 1 / 3, 1 / 3, 1 / 3, 1)):
        assert result[:, i].double().mean() == pytest.approx(share, abs=0.07)
    ungrouped = permute_labels(positive, torch.zeros(8, dtype=torch.int64), 600, generator)
    assert (ungrouped.sum(1) == 4).all()
    assert ungrouped.double().mean(0).tolist() == pytest.approx([0.5] * 8, abs=0.07)


def test_responses_that_are_not_numbers_are_refused():
    """NaN has no rank; the area was outside [0, 1]."""
    values, positive = torch.tensor([[0.0], [torch.nan], [1.0]]), torch.tensor([True, False, True])
    with pytest.raises(ValueError, match="NaN"):
        auc(values, positive)
