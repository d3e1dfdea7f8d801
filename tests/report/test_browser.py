# SPDX-License-Identifier: Apache-2.0
"""The pages in a real browser: what loads, what runs, what is seen, read out and found."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.report.index import write_index
from harness.run import events
from harness.run.result import ImageFacts, Outcome
from tests.report import stories
from tests.report.browser import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")

STORIES: dict[str, Callable[[Path], Path]] = {
    name: getattr(stories, name)
    for name in ("success", "failure", "incomplete", "interrupted", "not_ready", "long", "huge", "hostile")
}

# Every text that is seen, with the contrast of its colour to what lies behind it (WCAG 2.2, 1.4.3).
FAINT = """
(() => {
  const parts = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const seen = (c) => { const p = parts(c); return p.length === 3 || p[3] === 1; };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, style = getComputedStyle(e);
    if (!walker.currentNode.data.trim() || !e.checkVisibility({ contentVisibilityAuto: true }) || /^(title|script|style)$/.test(e.localName)) continue;
    const drawn = e.localName === "text";
    let behind = e;
    while (behind && !seen(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    let ground = getComputedStyle(behind || document.body).backgroundColor;
    if (drawn && e.classList.contains("in")) ground = getComputedStyle(e.closest(".bar").querySelector("rect")).fill;
    const [a, b] = [light(drawn ? style.fill : style.color), light(ground)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.push(`${walker.currentNode.data.trim().slice(0, 30)} in ${e.localName}.${e.className.baseVal ?? e.className}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()
"""  # noqa: E501


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: tell(folder / name) for name, tell in STORIES.items()}


@pytest.mark.parametrize("name", STORIES)
def test_nothing_loads_breaks_or_runs_over(tab: Browser, pages: dict[str, Path], name: str) -> None:
    """On a desktop and a phone, light and dark."""
    for phone, dark in itertools.product((False, True), repeat=2):
        tab.open(pages[name], width=390 if phone else 1200, dark=dark, phone=phone)
        assert tab.problems == []
        assert tab.requested == [pages[name].absolute().as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= (390 if phone else 1200)
        assert tab.evaluate("document.querySelectorAll('h1').length") == 1
        assert tab.evaluate(FAINT) == []


def test_nothing_that_a_guest_says_is_obeyed(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["hostile"])
    assert "owned" not in tab.evaluate("document.title").partition(":")[0]
    assert tab.evaluate("document.querySelectorAll('img, main script, body style').length") == 0
    assert tab.evaluate("[...document.querySelectorAll('main pre')].every((e) => e.children.length < 9000)")
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).display") == "block"
    assert "<h1>fake</h1>" in tab.evaluate("document.querySelector('.evidence pre:last-child').textContent")
    links = tab.evaluate("[...document.links].map((a) => a.href)")
    folder = pages["hostile"].parent.absolute().as_uri()
    assert links and all(link.startswith(folder) for link in links)
    # Were a script to get in, the page's policy would refuse it.
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    assert tab.evaluate("document.title") != "1"


def test_what_failed_where_and_why_is_on_the_first_screen(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["failure"], width=1200, height=900)
    first_screen = """[...document.querySelectorAll('h1, .evidence *')]
        .filter((e) => e.getBoundingClientRect().bottom < innerHeight).map((e) => e.textContent).join('\\n')"""
    seen = tab.evaluate(first_screen)
    for text in ("because of the extension", "script-app-site-start", "exit code 3", "Address already in use"):
        assert text in seen
    assert "systemctl start nginx" in seen


def test_the_picture(tab: Browser, pages: dict[str, Path]) -> None:
    """Names are readable: none is cut off by the picture's edge, nor lies on another."""
    overlapping = """(() => {
      const texts = [...document.querySelectorAll('.timeline text:not(.axis)')].filter((e) => e.checkVisibility());
      const boxes = texts.map((e) => [e.textContent, e.getBoundingClientRect()]);
      const frame = document.querySelector('.timeline').getBoundingClientRect();
      const bad = boxes.filter(([t, b]) => b.left < frame.left || b.right > frame.right).map(([t]) => 'cut: ' + t);
      for (const [i, [t, a]] of boxes.entries()) for (const [u, b] of boxes.slice(i + 1))
        if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4)
          bad.push(t + ' / ' + u);
      return bad; })()"""
    for name in ("success", "failure", "interrupted", "long", "hostile"):
        for width in (390, 1200):
            tab.open(pages[name], width=width, phone=width < 800)
            assert tab.evaluate(overlapping) == [], (name, width)
    tab.open(pages["long"])
    assert tab.evaluate("document.querySelector('.timeline svg').getBoundingClientRect().height") < 620
    # A bar leads to its step.
    tab.evaluate("location.hash = document.querySelector('.timeline a:nth-of-type(100)').getAttribute('href')")
    assert tab.evaluate("new Promise((done) => setTimeout(() => done(document.getElementById('step-100').open)))")


def test_search(tab: Browser, pages: dict[str, Path]) -> None:
    """The keyboard alone finds a word in a stream that is folded away."""
    tab.open(pages["failure"])
    tab.key("/")
    assert tab.evaluate("document.activeElement.id") == "find"
    for letter in "214 files":
        tab.key(letter)
    tab.key("Enter")
    assert tab.evaluate("document.getElementById('hits').textContent") == "1 of 1"
    assert tab.evaluate("document.getElementById('step-2').open")
    assert [text for role, text in tab.tree() if role == "status"] != []
    tab.key("Escape")
    assert tab.evaluate("document.getElementById('hits').textContent") == ""


def test_search_in_megabytes(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["huge"])
    assert pages["huge"].stat().st_size < 2 << 20
    tab.key("/")
    for letter in "quick":
        tab.key(letter)
    tab.key("Enter")
    assert tab.evaluate("hits.textContent") == "1 of 2000+"
    assert "steps/run-once-1/stdout" in tab.evaluate("[...document.links].map((a) => a.href).join()")


def test_many_steps_can_be_narrowed_down(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["long"])
    shown = "[...document.querySelectorAll('.step')].filter((e) => e.checkVisibility()).length"
    assert tab.evaluate(shown) == 200
    tab.evaluate("problems.click()")
    assert tab.evaluate(shown) == 2
    tab.evaluate("problems.click(), folds.click()")
    assert tab.evaluate("[...document.querySelectorAll('.step')].every((e) => e.open)")


def test_read_out(tab: Browser, pages: dict[str, Path]) -> None:
    """Landmarks, headings and names for whoever does not see the page."""
    tab.open(pages["failure"])
    tree = tab.tree()
    roles = [role for role, _ in tree]
    for landmark in ("banner", "navigation", "main", "contentinfo", "search"):
        assert roles.count(landmark) == 1, landmark
    headings = [name for role, name in tree if role == "heading"]
    assert headings[0].startswith("Failed because of the extension: step script-app-site-start")
    assert "What happened" in headings and any("script-app-site-start" in name for name in headings[1:])
    pictures = [name for role, name in tree if role == "image"]
    assert len(pictures) == 1 and "4 steps ran; the longest was script-app-site-start (6.1 s)" in pictures[0]
    named = ("link", "button", "searchbox", "table", "image", "region")
    assert [(role, name) for role, name in tree if role in named and not name] == []
    assert tab.evaluate("[...document.querySelectorAll('[tabindex=\"0\"]')].every((e) => e.ariaLabel)")
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.localName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_keyboard(tab: Browser, pages: dict[str, Path]) -> None:
    """The first thing to reach skips to what happened; everything reached shows that it is."""
    tab.open(pages["failure"])
    tab.key("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    for _ in range(25):
        tab.key("Tab")
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", tab.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def test_without_script_everything_is_there(pages: dict[str, Path]) -> None:
    with browser() as plain:
        plain.command("Emulation.setScriptExecutionDisabled", value=True)
        plain.open(pages["failure"])
        tree = plain.tree()
        assert any("Failed because of the extension" in name for _, name in tree)
        assert not any(role == "searchbox" or (role == "button" and name == "Unfold all") for role, name in tree)


def test_print(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["failure"])
    paper = tab.pdf()
    assert paper.startswith(b"%PDF") and 1 <= paper.count(b"/Type /Page\n") <= 5


def test_index(tab: Browser, tmp_path: Path) -> None:
    """A regression is seen at a glance, in a matrix of extensions and images with their history."""
    for number in range(9):
        slow = 40.0 if number == 8 else 3.0 + number / 10
        for extension, image in itertools.product(("Database", "WebFarm"), ("debian-12", "windows-2022")):
            bad = (extension, image, number) in {("WebFarm", "debian-12", 8), ("Database", "windows-2022", 7)}
            seconds = slow if extension == "Database" else 2.0
            run(tmp_path / f"{extension}-{image}-{number}", extension, image, number, bad, seconds)
    fresh = [path for path in tmp_path.iterdir() if path.name.endswith("-8")]
    page = write_index(tmp_path, title="nightly", fresh=fresh)
    assert page
    for phone, dark in itertools.product((False, True), repeat=2):
        tab.open(page, width=390 if phone else 1200, dark=dark, phone=phone)
        assert tab.problems == [] and tab.requested == [page.absolute().as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= (390 if phone else 1200)
        assert tab.evaluate(FAINT) == []
    said = tab.evaluate("document.querySelector('h1').textContent")
    assert said == "1 of 4 runs did not succeed (1 of them did the last time); 2 took longer than usual."
    cells = tab.evaluate("[...document.querySelectorAll('tbody tr')].slice(0, 2).map((r) => r.innerText)")
    assert "times slower than usual" in cells[0] and "failed the last time" in cells[0]
    assert "succeeded 8 times before" in cells[1]
    assert tab.evaluate("document.querySelectorAll('.history').length") == 4
    links = tab.evaluate("[...document.querySelectorAll('.cell a')].map((a) => a.getAttribute('href'))")
    assert len(links) == 4 and all((tmp_path / link).is_file() for link in links)


def run(directory: Path, extension: str, image: str, number: int, bad: bool, seconds: float) -> None:
    story = stories.Story(directory, extension=extension)
    story.tell(events.MachineChosen, image=ImageFacts(image, "0123456789abcdef"))
    story.now += datetime.timedelta(days=number)
    story.tell(events.RunStarted, run=directory.name, extension=extension, title=extension)
    outcome: dict[str, Any] = {"outcome": Outcome.failed, "exit_code": 1} if bad else {}
    story.steps([stories.ran("run-once-1", seconds=seconds, **outcome)])
    story.finish(seconds=seconds)
