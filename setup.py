"""The long description: README.md with links that work outside the repository."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BRANCH = "main"
PICTURES = (".gif", ".jpg", ".png", ".svg")


def absolute_links(text: str, address: str) -> str:
    """Return Markdown with links to files of the repository made absolute.

    Args:
        text: Markdown whose relative links start at the root of the repository.
        address: The repository's address.
    """

    def replace(match: re.Match[str]) -> str:
        view = "raw" if match[1].endswith(PICTURES) else "blob"  # the file, or a page about it
        return f"]({address}/{view}/{BRANCH}/{match[1]})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", replace, text)


if __name__ == "__main__":  # so that the tests can import this file
    setup(
        long_description=absolute_links(
            (ROOT / "README.md").read_text("utf-8"), PROJECT["urls"]["Repository"]
        ),
        long_description_content_type="text/markdown",
    )
