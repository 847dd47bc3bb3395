"""Make the gallery's five pages by the commands that docs/gallery.md shows.

    python docs/make_gallery.py [--thumbnails] build/gallery

What is there is left alone, so that the command can be stopped and run again; all of it takes about
three minutes on two idle cores, and CIFAR-10. --thumbnails photographs the pages with Playwright
and Chromium, small, for the documents.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCUMENT = Path(__file__).with_name("gallery.md")
THUMBNAILS = Path(__file__).with_name("gallery")

PAGES: Mapping[str, str] = {
    "run": "runs/cnn-quick/1/report.html",
    "comparison": "comparison.html",
    "study": "studies/activations/report.html",
    "audit": "audit.html",
    "eda": "eda/eda.html",
}
"""Where the commands leave each page."""

WIDTH, HEIGHT, SCALE = 1280, 900, 0.5


def main(arguments: Sequence[str]) -> int:
    """Make what is missing; the exit status of the command that failed, if any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pages and their runs are to be")
    parser.add_argument("--thumbnails", action="store_true", help="photograph the pages anew")
    options = parser.parse_args(arguments)
    work = options.folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    for name, commands in read_commands().items():
        page = options.folder / f"{name}.html"
        if page.exists():
            continue
        for command in commands:
            if status := run(command, work):
                sys.stderr.write(f"The page {name!r} can't be made: {command} failed.\n")
                return status
        shutil.copy(work / PAGES[name], page)
    if options.thumbnails:
        photograph(options.folder)
    return 0


def read_commands() -> dict[str, list[str]]:
    """The commands below each page's heading in the document, by the page."""
    commands: dict[str, list[str]] = {}
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        name = re.search(r"\(gallery/([a-z]+)\.webp\)", section)
        blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
        if name and blocks:
            commands[name[1]] = [line for block in blocks for line in block.splitlines()]
    return commands


def run(command: str, folder: Path) -> int:
    """Run a command of tenfold in `folder`."""
    program, *words = shlex.split(command, comments=True)
    assert program == "tenfold", command
    sys.stdout.write(f"$ {command}\n")
    sys.stdout.flush()
    # No run of another folder, and no cluster.
    environment = {k: v for k, v in os.environ.items() if k not in ("TENFOLD_RUNS", "RAY_ADDRESS")}
    started = subprocess.run(
        [sys.executable, "-m", "tenfold", *words], cwd=folder, env=environment, check=False
    )
    return started.returncode


def photograph(folder: Path) -> None:
    """Write a small image of the top of each page in `folder`."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    THUMBNAILS.mkdir(exist_ok=True)
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name in PAGES:
            view.goto((folder / f"{name}.html").resolve().as_uri())
            with Image.open(io.BytesIO(view.screenshot())) as shot:
                small = shot.convert("RGB").resize(
                    (int(WIDTH * SCALE), int(HEIGHT * SCALE)), Image.Resampling.LANCZOS
                )
            small.save(THUMBNAILS / f"{name}.webp", quality=80, method=6)
        browser.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
