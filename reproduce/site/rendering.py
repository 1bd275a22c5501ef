"""The template environment and the static files that the gallery and the atlas share.

The style of a page is the explorer's `theme.css`, `static/style.css`, and a sheet of its kind. The
atlas has it in its page, and the pages of a gallery share a file.
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
        "fill": text.fill,
    }
    return environment


def render(template: str, **values: object) -> str:
    """Render a template of `templates/`. Values are escaped in .html templates."""
    return environment(template.endswith(".html")).get_template(template).render(values)


def style_sheet(name: str) -> str:
    """The style of pages of one kind, such as "gallery.css"."""
    sheets = (THEME / "theme.css", STATIC / "style.css", STATIC / name)
    return "".join(sheet.read_text("utf-8") for sheet in sheets)
