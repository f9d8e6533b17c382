"""Make notebooks/images/gpt_box.png: chapter 07's box, as the page shows it where no JavaScript runs.

`python tools/box_picture.py [HTML]` opens the built chapter in a headless Chromium, leaves nothing in it but the box,
as it is when it is first seen, and takes a picture at twice the size.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import screenshots
from PIL import Image, ImageChops

PICTURE = screenshots.ROOT / "notebooks" / "images" / "gpt_box.png"
WIDTH, HEIGHT, COLOURS = 700, 1400, 64  # pixels of the window, more than the box is high; colours of the picture
ALONE = """addEventListener("load", () => {
  document.body.replaceChildren(document.getElementById("gpt-box"));
  Object.assign(document.body.style, { margin: 0, padding: "1px 8px" });
});"""


def scripted(page: Path, script: str, folder: Path) -> Path:
    """A copy of a built page in another folder, with a script of ours before its own."""
    head = f'<head><base href="{page.as_uri()}"><script>{script}</script>'
    copy = folder / page.name
    copy.write_text(page.read_text(encoding="utf-8").replace("<head>", head, 1), encoding="utf-8")
    return copy


def take(page: Path, target: Path, width: int = WIDTH, mode: str = "light") -> None:
    """A picture of the page's box, without the empty ground around it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = scripted(page, screenshots.MODE_SCRIPT.format(mode=mode) + ALONE, Path(folder))
        shot = Path(folder) / "shot.png"
        options = ["--force-device-scale-factor=2", f"--window-size={width},{HEIGHT}"]
        screenshots.chromium(f"--screenshot={shot}", *options, f"{copy.as_uri()}?words=0")
        picture = Image.open(shot).convert("RGB")
    ground = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    picture = picture.crop(ImageChops.difference(picture, ground).getbbox())
    picture.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    html = Path(sys.argv[1]) if len(sys.argv) > 1 else screenshots.ROOT / "_build" / "html"
    take((html / "notebooks" / "07_training.html").resolve(), PICTURE)
    print(PICTURE)
