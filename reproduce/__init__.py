"""Scripts that regenerate every figure and table of the paper: `python -m reproduce all`.

The package reads `configs/` and writes `figures/`, so it runs only from a clone of the repository.
"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FIGURES = REPOSITORY / "figures"

if not all((REPOSITORY / name).exists() for name in ("pyproject.toml", "configs")):
    raise ImportError(
        f"reproduce runs only from a clone of the repository: {REPOSITORY} has no pyproject.toml "
        "and configs/. Clone the repository and run `python -m reproduce` in its root folder."
    )
