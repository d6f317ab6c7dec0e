"""Looks at reports of value studies in a headless Chromium; no part of the suite, since that has no browser.

    pip install playwright
    python check_report_in_browser.py --chromium PATH [--pictures FOLDER] [REPORT.html ...]

Of each report (default: some made up ones), at 1280 and 400 pixels, light and dark: nothing on the console, nothing fetched, no text on
another or beyond the edge of the page, letters large enough, and of every plot a title, a description and a table. Exits with 1 where
something fails.
"""

import argparse
import pathlib
import sys
import tempfile

from playwright.sync_api import sync_playwright

WIDTHS = (1280, 400)
# Texts with their places, as far as they are shown; of a node that runs over several lines one place a line.
TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("title, desc, style")) continue;
    if (!parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const plot = parent.closest("svg");
    const scrolls = parent.closest(".wide, pre");
    const clip = scrolls && scrolls.getBoundingClientRect();
    for (const box of range.getClientRects()) {
      if (box.width < 1 || box.height < 1) continue;
      let [left, right, top, bottom] = [box.left, box.right, box.top, box.bottom];
      if (clip) {
        left = Math.max(left, clip.left); right = Math.min(right, clip.right);
        top = Math.max(top, clip.top); bottom = Math.min(bottom, clip.bottom);
        if (left >= right || top >= bottom) continue;
      }
      found.push({text: node.data.trim().slice(0, 60), plot: !!plot, size: box.height,
                  left, right, top: top + scrollY, bottom: bottom + scrollY});
    }
  }
  return found;
}"""
PLOTS = """() => [...document.querySelectorAll("svg")].map(plot => ({
  title: plot.querySelector(":scope > title")?.textContent ?? "",
  desc: plot.querySelector(":scope > desc")?.textContent ?? "",
  table: plot.closest("figure")?.querySelectorAll("details table tbody tr").length ?? 0,
  empty: !plot.querySelector(".line, .dot, .hollow, .bar, .segment"),
}))"""
# Letters of a plot may be smaller than those of the text, not than these, pixels of the line.
SMALLEST = 11
# A line box is higher than its letters: boxes that share an edge do not touch.
TOUCHING = 2.0


def overlaps(texts):
    """Pairs of texts that lie on each other."""
    texts = sorted(texts, key=lambda t: t["top"])
    for place, one in enumerate(texts):
        for other in texts[place + 1 :]:
            if other["top"] >= one["bottom"] - TOUCHING:
                break
            if min(one["right"], other["right"]) - max(one["left"], other["left"]) > TOUCHING:
                yield f"{one['text']!r} lies on {other['text']!r}"


def faults(page, width):
    """What is wrong with a page at a width."""
    for opened in (False, True):
        page.evaluate(
            f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})"
        )
        texts = page.evaluate(TEXTS)
        yield from overlaps(texts)
        for text in texts:
            if text["right"] > width + 1 or text["left"] < -1:
                yield f"{text['text']!r} ends at {text['right']:.0f} of {width}"
            if text["plot"] and text["size"] < SMALLEST:
                yield f"{text['text']!r} is {text['size']:.1f} high"
        if page.evaluate("document.documentElement.scrollWidth") > width:
            yield "the page scrolls sideways"
    for plot in page.evaluate(PLOTS):
        if not (plot["title"] and plot["desc"] and plot["table"]) or plot["empty"]:
            yield f"plot without an alternative, or empty: {plot}"


def look(browser, report, pictures):
    """Number of faults, each printed."""
    total = 0
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page = context.new_page()
            told, fetched = [], []
            page.on("console", lambda message, told=told: told.append(f"console: {message.text}"))
            page.on("pageerror", lambda error, told=told: told.append(f"error: {error}"))
            page.on("request", lambda request, fetched=fetched: fetched.append(request.url))
            page.goto(report.resolve().as_uri())
            if pictures:
                name = f"{report.stem}-{width}-{scheme}.png"
                page.screenshot(path=pictures / name, full_page=True)
            told += faults(page, width) if scheme == "light" else []
            told += [f"fetched {url}" for url in fetched[1:]]
            for fault in dict.fromkeys(told):
                print(f"{report.name} at {width} px, {scheme}: {fault}")
            total += len(told)
            context.close()
    print(f"{report.name}: {total} faults")
    return total


def made_up(folder):
    """Reports of studies of one value and of several."""
    here = pathlib.Path(__file__).resolve().parent
    sys.path[:0] = [str(here.parent), str(here)]
    import made_up_study

    import valuescope as vs

    several = ("stimulation", "power", "security", "benevolence", "tradition")
    return [
        vs.study_report(made_up_study.made_up_study(names), folder / f"{len(names)}.html")
        for names in (("stimulation",), several)
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chromium", help="its program; default the one that playwright installed")
    parser.add_argument("--pictures", type=pathlib.Path, help="folder for screenshots")
    parser.add_argument("reports", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        reports = arguments.reports or made_up(pathlib.Path(folder))
        total = sum(look(browser, report, arguments.pictures) for report in reports)
        browser.close()
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
