"""Sphinx extension: of the theme's icon font (Font Awesome Free) only the few icons that the pages show.

The build writes ``_static/icons.css``, the rules and the font in one file of some kilobytes, in place of the theme's
style sheet and fonts of half a megabyte, which :mod:`llmbook_page` takes out of the pages.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

ICONS = (  # what the theme's templates name; a test looks for others
    "angle-left angle-right arrow-up bars circle-half-stroke compress download expand file file-pdf list "
    "magnifying-glass moon sun xmark"
).split()
RULES = """\
@font-face {{ font-family: "Font Awesome 6 Free"; font-weight: 900; src: url(data:font/woff;base64,{font}); }}
:root {{ --fa-font-solid: normal 900 1em/1 "Font Awesome 6 Free"; --fa-font-regular: var(--fa-font-solid); }}
.fa, .fas, .fa-solid {{
  display: inline-block; font-family: "Font Awesome 6 Free"; font-style: normal; font-weight: 900; line-height: 1;
  text-rendering: auto; -webkit-font-smoothing: antialiased;
}}
.fa-lg {{ font-size: 1.25em; line-height: 0.05em; vertical-align: -0.075em; }}
"""


def codes(css: str) -> dict[str, str]:
    """The code of each of :data:`ICONS` in the icon style sheet; KeyError for one that it does not have."""
    found = {}
    for selectors, code in re.findall(r'((?:\.fa-[\w-]+::?before,?)+)\{content:"\\([0-9a-f]+)"\}', css):
        found |= dict.fromkeys(re.findall(r"\.fa-([\w-]+):", selectors), code)
    return {name: found[name] for name in ICONS}


def drawn_by_styles(css: str) -> set[int]:
    """The icons that the theme's own style sheet draws, as code points: those of boxes and of external links."""
    return {ord(icon) for icon in re.findall(r'--pst-icon-[\w-]+:"(.)"', css)}


def font_of(path: Path, points: set[int]) -> bytes:
    """A WOFF font with these code points of the font at ``path``, where it has them."""
    font = TTFont(path)
    chosen = subset.Subsetter()
    chosen.populate(unicodes=points)
    chosen.subset(font)
    font.flavor = "woff"
    file = io.BytesIO()
    font.save(file)
    return file.getvalue()


def write_icons(app: Sphinx, error: Exception | None) -> None:
    """Write the style sheet, once the theme's files are there."""
    static = Path(app.outdir, "_static")
    styles = next(static.glob("vendor/fontawesome/*/css/all.min.css"), None)
    if error is None and app.builder.format == "html" and styles:
        named = codes(styles.read_text(encoding="utf-8"))
        theme = (static / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
        points = {int(code, 16) for code in named.values()} | drawn_by_styles(theme)
        font = font_of(styles.parents[1] / "webfonts" / "fa-solid-900.ttf", points)
        rules = [RULES.format(font=base64.b64encode(font).decode())]
        rules += [f'.fa-{name}::before {{ content: "\\{code}"; }}\n' for name, code in named.items()]
        (static / "icons.css").write_text("".join(rules), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_css_file("icons.css")
    app.connect("build-finished", write_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
