"""Transfer of a frozen network's features to other data sets (section 5, Tables 4-7, Fig. 9).

With more features than images, a linear classifier needs only inner products: it is trained on
exact factors of the Gram matrix. Needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zfnet.analysis.extra import import_extra
from zfnet.data import no_progress

# The values of C to choose from.
C_GRID = {
    "linear_svm": (0.01, 0.1, 1.0, 10.0, 100.0),
    "softmax": (0.1, 1.0, 10.0, 100.0, 1000.0),
}


@dataclass(frozen=True)
class Fold:
    """A train-test split.

    Attributes:
        train: The numbers of the training images.
        test: The numbers of the test images.
    """

    train: np.ndarray
    test: np.ndarray


def folds(
    labels: np.ndarray, per_class: int, *, max_test: int = 50, count: int = 5, seed: int = 0
) -> list[Fold]:
    """Draw random splits by Caltech-101's protocol.

    A class with too few images keeps one for the test. With the same seed, the training images of a
    smaller `per_class` are a subset of those of a larger one.

    Args:
        labels: The class of each image (N,).
        per_class: The number of training images per class.
        max_test: The maximal number of test images per class.
        count: The number of splits.
        seed: The seed of the draws.

    Returns:
        The splits.

    Raises:
        ValueError: If a class has only one image.

    Example:
        >>> [len(fold.train) for fold in folds(np.array([0, 0, 0, 1, 1, 1]), 2, count=1)]
        [4]
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"classes {classes[counts < 2][:10].tolist()} have one image each; "
            f"two are needed, one to train and one to test"
        )
    splits = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        permuted = [rng.permutation((labels == c).nonzero()[0]) for c in classes]
        parts = [np.split(order, [min(per_class, len(order) - 1)]) for order in permuted]
        train = np.concatenate([first for first, _ in parts])
        test = np.concatenate([rest[:max_test] for _, rest in parts])
        splits.append(Fold(train, test))
    return splits


def gram(
    features: np.ndarray, *, chunk: int = 1024, progress: Callable = no_progress
) -> np.ndarray:
    """Return the inner products of all pairs of features, computed in chunks.

    Args:
        features: Features (N, D); two chunks of rows are in memory at once.
        chunk: The number of rows per chunk.
        progress: A progress bar such as `tqdm.tqdm`.

    Returns:
        The Gram matrix (N, N) float32.

    Example:
        >>> gram(np.array([[1.0, 0.0], [1.0, 2.0]])).tolist()
        [[1.0, 1.0], [1.0, 5.0]]
    """
    starts = range(0, len(features), chunk)
    products = np.empty((len(features), len(features)), np.float32)
    for i in progress(starts, total=len(starts), desc="inner products"):
        rows = torch.from_numpy(np.array(features[i : i + chunk], np.float32))
        for j in range(0, i + 1, chunk):  # the matrix is symmetric
            columns = (
                rows if i == j else torch.from_numpy(np.array(features[j : j + chunk], np.float32))
            )
            block = (rows @ columns.T).numpy()
            products[i : i + chunk, j : j + chunk] = block
            products[j : j + chunk, i : i + chunk] = block.T
    return products


def coordinates(
    products: np.ndarray, fold: Fold, *, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return coordinates that are equivalent to the features for a linear classifier.

    With the Gram matrix of the training images, $K = U \Lambda U^T$, these are $U \Lambda^{1/2}$
    for the training images and $K_* U \Lambda^{-1/2}$ for the test images. They are scaled to a
    mean squared norm of 1 over the training images, so that one regularization suits every layer.

    Args:
        products: The Gram matrix (N, N), as returned by `gram`.
        fold: A split into n training and m test images.
        tolerance: Eigenvalues below this share of the largest one are rounding errors, and are
            dropped.

    Returns:
        Coordinates of the training images (n, r) and of the test images (m, r).

    Example:
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> train, test = coordinates(x @ x.T, Fold(np.array([0, 1]), np.array([2])))
        >>> np.allclose(test @ train.T, [[1, 1]])
        True
    """
    kernel = torch.from_numpy(products[np.ix_(fold.train, fold.train)]).double()
    kernel, scale = kernel / kernel.diagonal().mean(), float(kernel.diagonal().mean())
    values, vectors = torch.linalg.eigh(kernel)
    significant = values > tolerance * values[-1]
    values, vectors = values[significant], vectors[:, significant]
    test_kernel = torch.from_numpy(products[np.ix_(fold.test, fold.train)]).double() / scale
    return (vectors * values.sqrt()).numpy(), (test_kernel @ vectors / values.sqrt()).numpy()


def linear_svm(
    x: np.ndarray, y: np.ndarray, choices: Sequence[float] = C_GRID["linear_svm"], *, seed: int = 0
):
    """Fit scikit-learn's LinearSVC (one versus rest), with C chosen by 3-fold cross-validation.

    Args:
        x: Features (n, d).
        y: Classes (n,).
        choices: The values of C to choose from.
        seed: The seed of the solver and of the cross-validation.

    Returns:
        The fitted classifier.

    Example:
        >>> linear_svm(np.eye(4), np.array([0, 0, 1, 1]), (1.0,)).predict(np.eye(4)).tolist()
        [0, 0, 1, 1]
    """
    svm = import_extra("sklearn.svm")
    # A tolerance of 0.01 instead of 0.0001 takes a fraction of the time.
    return _grid_search(svm.LinearSVC(random_state=seed, tol=1e-2), x, y, choices, seed)


def softmax(
    x: np.ndarray, y: np.ndarray, choices: Sequence[float] = C_GRID["softmax"], *, seed: int = 0
):
    """Fit scikit-learn's multinomial logistic regression, with C chosen as in `linear_svm`.

    Args:
        x: Features (n, d).
        y: Classes (n,).
        choices: The values of C to choose from.
        seed: The seed of the cross-validation.

    Returns:
        The fitted classifier.

    Example:
        >>> softmax(np.eye(4), np.array([0, 0, 1, 1]), (1.0,)).predict(np.eye(4)).tolist()
        [0, 0, 1, 1]
    """
    linear_model = import_extra("sklearn.linear_model")
    return _grid_search(linear_model.LogisticRegression(max_iter=1000), x, y, choices, seed)


def _grid_search(
    classifier, x: np.ndarray, y: np.ndarray, choices: Sequence[float], seed: int, max_classes=30
):
    """Fit a classifier with the best C; for speed, C is chosen on at most `max_classes` classes."""
    selection = import_extra("sklearn.model_selection")
    classes, counts = np.unique(y, return_counts=True)
    splits = min(3, int(counts.min()))
    best = choices[len(choices) // 2]
    if len(choices) > 1 and splits > 1:
        subset = np.isin(y, np.random.default_rng(seed).permutation(classes)[:max_classes])
        splitter = selection.StratifiedKFold(splits, shuffle=True, random_state=seed)
        search = selection.GridSearchCV(classifier, {"C": list(choices)}, cv=splitter, refit=False)
        best = search.fit(x[subset], y[subset]).best_params_["C"]
    return classifier.set_params(C=best).fit(x, y)


def per_class_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean accuracy over classes, in percent.

    Args:
        labels: The true classes (N,).
        predicted: The predicted classes (N,).

    Returns:
        The mean over classes of the share of their images that are classified correctly.

    Example:
        >>> per_class_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
        50.0
    """
    correct = labels == predicted
    return 100 * float(np.mean([correct[labels == c].mean() for c in np.unique(labels)]))


def average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """Return PASCAL VOC 2012's average precision of one class, in percent.

    The area under the precision-recall curve, made monotonic. Images with equal scores share one
    point of the curve, so their order has no effect.

    Args:
        scores: One score per image (N,).
        present: Whether each image shows the class (N,): 1, 0, or -1 to ignore the image.

    Returns:
        The average precision.

    Raises:
        ValueError: If no image shows the class, or a score is NaN.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, 0, -1]))
        100.0
    """
    valid = present >= 0
    order = np.argsort(-scores[valid], kind="stable")
    descending, hits = -scores[valid][order], present[valid][order] == 1
    if not hits.any():
        raise ValueError("no image shows the class")
    if np.isnan(descending).any():
        raise ValueError("scores must not be NaN")
    last = np.searchsorted(descending, descending, side="right") - 1  # image with the same score
    precision = hits.cumsum()[last] / (last + 1)
    monotonic = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(monotonic[hits].mean())
