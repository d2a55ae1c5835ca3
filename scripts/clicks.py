"""python -m scripts.clicks RUN [--clicks 1000] [--pictures FOLDER]

The explorer in a real browser, as a person has it: milliseconds from a click to the picture on the screen, one step,
after a warm-up; then many clicks, and the memory of the server before and after. With --pictures, the screenshots of
docs/explorer.md. Needs Chromium and the extra [browser].
"""

import argparse
import dataclasses
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dd_jax.system import files, runtime
from dd_jax.system.errors import UserError

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
)
WARM = 20  # clicks that are not counted
PATIENCE = 600_000  # ms: programs are compiled
# Clicks, and waits until the pictures are others -> ms.
CLICK = """button => new Promise(done => {
  const grid = document.querySelector('#grid'), before = grid.querySelector('td img').src, begun = performance.now()
  new MutationObserver((_, observer) => {
    const now = grid.querySelector('td img')
    if (now && now.src != before) { observer.disconnect(); done(performance.now() - begun) }
  }).observe(grid, {subtree: true, childList: true, attributes: true})
  document.querySelector(button).click()
})"""
DRAWN = "n => document.querySelectorAll('#grid td img').length == n"


@dataclasses.dataclass(frozen=True)
class Measured:
    """Milliseconds of single clicks, and the server's memory in MB after the warm-up and at the end."""

    ms: list[float]
    before: float
    after: float

    def __str__(self) -> str:
        ordered = sorted(self.ms)
        return (
            f"{len(self.ms)} clicks: median {statistics.median(self.ms):.0f} ms, 95 % within "
            f"{ordered[int(0.95 * (len(ordered) - 1))]:.0f} ms; memory {self.before:.0f} -> {self.after:.0f} MB"
        )


def memory() -> float:
    """MB of this process, which is the server's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(page: Any, clicks: int, plans: Sequence[str]) -> Measured:
    """Of new noises for one picture, drawn by the first of these plans."""
    for plan in plans[1:]:
        page.get_by_label(plan, exact=True).uncheck()
    page.get_by_label("number input for Pictures").fill("1")
    page.get_by_label("number input for Pictures").press("Enter")
    page.wait_for_function(DRAWN, arg=1, timeout=PATIENCE)
    for _ in range(WARM):
        page.evaluate(CLICK, "#again")
    before = memory()
    return Measured([page.evaluate(CLICK, "#again") for _ in range(clicks)], before, memory())


def pictures(page: Any, folder: Path, columns: int) -> None:
    """explorer.png, all plans side by side, and explorer_repaint.png."""
    page.wait_for_function(DRAWN, arg=4 * columns, timeout=PATIENCE)
    page.screenshot(path=folder / "explorer.png")
    page.set_viewport_size({"width": 1200, "height": 1700})  # all of the canvas is to be seen
    page.get_by_role("tab", name="A picture of yours").click()
    page.click("#take")
    page.wait_for_selector("#edited td img", timeout=PATIENCE)
    page.wait_for_timeout(1000)
    canvas = page.locator("#canvas canvas").first
    box = canvas.bounding_box()
    for row in (0.5, 0.58, 0.66, 0.74):  # the picture is in the middle of the canvas
        page.mouse.move(box["x"] + box["width"] * 0.36, box["y"] + box["height"] * row)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.64, box["y"] + box["height"] * row, steps=12)
        page.mouse.up()
    page.wait_for_timeout(1000)
    page.click("#paint")
    page.wait_for_function("document.querySelectorAll('#edited td img').length == 8", timeout=PATIENCE)
    page.wait_for_timeout(500)
    page.screenshot(path=folder / "explorer_repaint.png", full_page=True)


def run(folder: Path, clicks: int, out: Path | None) -> None:
    """Serve the run, and click. UserError for what is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("this needs playwright: pip install 'dd_jax[browser]'") from error
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise UserError(f"there is no Chromium: install one of {', '.join(NAMES)}")
    from dd_jax import pipeline
    from dd_jax.explore import page as explorer
    from dd_jax.explore.studio import Studio

    runtime.setup()
    pipe = pipeline.load(folder)
    plans = Studio(pipe).unasked
    made = explorer.build(pipe, folder.name, str(folder))
    address = explorer.launch(made, "127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*QUIET])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(address)
        page.wait_for_function("document.querySelector('#grid td img')", timeout=PATIENCE)
        if out is not None:
            pictures(page, out, len(plans))
            page.goto(address)
            page.wait_for_function("document.querySelector('#grid td img')", timeout=PATIENCE)
        if clicks:
            print(measure(page, clicks, plans))
        browser.close()
    made.close()


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.clicks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--clicks", type=int, default=1000, help="how many are timed (default: 1000)")
    parser.add_argument("--pictures", type=Path, help="where the screenshots go")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        if args.clicks < 0:
            raise UserError(f"--clicks={args.clicks}: a number of clicks, 0 or more")
        if args.pictures is not None:
            files.check_folder(args.pictures)
        run(args.run, args.clicks, args.pictures)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
