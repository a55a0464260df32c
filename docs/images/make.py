"""Photographs the dashboard of the demo: `python3 dev.py screenshots`.

It runs the demo for a minute and a half, so that there is something to see, and writes PNG files
beside this one.
"""

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUN_S = 90
COLOURS = 64
MOST_BYTES = 600_000

SHOTS = {
    "overview": ("/", "light"),
    "jobs": ("/jobs?state=retryable&state=discarded", "light"),
    "job": ("/jobs?state=discarded&kind=demo_charge_card", "light"),
    "queues": ("/queues", "dark"),
    "clients": ("/clients", "dark"),
}
"""By name: the page, and whether it is light or dark. Of `job`, the first job on that page."""


HIDE_PATHS = """root => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data.replaceAll(root, "/srv/riverbank");
  }
}"""
"""Traces name the folder of the one who takes the photographs, which is of no interest."""


def main() -> None:
    """Run the demo, and photograph its pages."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser.conftest import FLAGS
    from needs import find

    chromium = find("chromium")
    if chromium is None:
        sys.exit("this needs your system's package chromium")
    command = [sys.executable, "-m", "riverrun", "demo", "--dashboard"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as demo:
        try:
            link = next(found[1] for line in demo.stderr or () if (found := LINK.search(line)))
            print(f"the demo runs for {RUN_S} s", flush=True)
            time.sleep(RUN_S)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
                take_all(browser, link)
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
    total = sum(path.stat().st_size for path in HERE.glob("*.png"))
    print(f"{total / 1000:,.0f} kB in all")
    if total > MOST_BYTES:
        sys.exit(f"that is more than {MOST_BYTES / 1000:,.0f} kB")


LINK = re.compile(r"(http://\S+/sign-in\?token=\S+)")


def take_all(browser: Any, link: str) -> None:
    """Photograph each page."""
    root = link.partition("/sign-in")[0]
    context = browser.new_context(viewport={"width": 1200, "height": 760})
    page = context.new_page()
    page.goto(link)
    page.wait_for_url(f"{root}/")
    for name, (path, scheme) in SHOTS.items():
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{root}{path}")
        if name == "job":
            page.locator("tr[data-row] a").first.click()
        page.wait_for_load_state("networkidle")
        page.evaluate(HIDE_PATHS, str(ROOT))
        save(page.screenshot(), HERE / f"{name}.png")


def save(shot: bytes, path: Path) -> None:
    """Write a screenshot with few colours, which makes it small."""
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:,.0f} kB", flush=True)


if __name__ == "__main__":
    main()
