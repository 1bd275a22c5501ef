"""Scripts that regenerate every figure and table of the paper: `python -m reproduce all`, in a clone."""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if not all((_ROOT / name).exists() for name in ("pyproject.toml", "configs")):
    raise ImportError(
        f"reproduce runs only from a clone of the repository: {_ROOT} has no pyproject.toml and configs/. "
        "Clone the repository and run `python -m reproduce` in its root folder."
    )
