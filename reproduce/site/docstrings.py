"""An extension of griffe, the parser of the API reference: examples are rendered as code.

griffe takes a section "Examples:" of a docstring for code, and "Example:" for a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class RenderExamples(griffe.Extension):
    """Rename the sections "Example:" of all docstrings."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class or function."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
