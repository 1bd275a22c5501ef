"""The template environment and the static files that the gallery and the atlas share.

`templates/base.html` inlines the explorer's `theme.css` and `static/style.css`, so a page needs no
separate style sheet.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from reproduce import REPOSITORY
from reproduce.site import text

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"
THEME = REPOSITORY / "zfnet" / "explorer" / "static"  # theme.css, shared with the explorer


@functools.cache
def environment(escape: bool = True) -> jinja2.Environment:
    """The environment of all templates. It finds templates and static files.

    Args:
        escape: Escape HTML in values. Markdown templates escape with a filter instead.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, STATIC, THEME]),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": text.number,
        "duration": text.duration,
        "markdown": text.escape_markdown,
        "wrap": text.wrap,
    }
    return environment


def render(template: str, **values: object) -> str:
    """Render a template of `templates/`. Values are escaped in .html templates."""
    return environment(template.endswith(".html")).get_template(template).render(values)
