"""Import the optional packages of the extra `analysis`."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(module: str) -> ModuleType:
    """Import a module of scikit-learn or scipy.

    Args:
        module: A module's path, such as "sklearn.manifold".

    Returns:
        The module.

    Raises:
        ImportError: If it is missing; the message names the extra.

    Example:
        >>> import_extra("scipy.optimize").__name__
        'scipy.optimize'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(root := module.split(".")[0], root)
        raise ImportError(
            f"{package} is missing; install it with: pip install 'zfnet-deconvnet[analysis]'"
        ) from error
