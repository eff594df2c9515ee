"""The leaderboard page in a real browser: Debian's chromium, headless, driven by playwright.

The tests need ``apt-get install chromium`` (or $CHROMIUM names another one) and ``pip install -e
'.[dev]'``. Without them pytest skips these tests and says so in its summary.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.analysis.counterparts import find_counterparts
from benchmark.report.page import page as html
from benchmark.report.sections import sections
from support.leaderboard_page import (
    HOSTILE,
    LONG,
    column,
    hostile_records,
    names,
    overflow,
    ranking,
    toy,
)
from support.published_numbers import ROWS as PUBLISHED
from support.published_numbers import published
from support.published_numbers import records as measured_records
from support.reports import summarized

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)
pytestmark = pytest.mark.browser


def png(width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (width, 66), (200, 80, 40, 255)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "leaderboard.html"
    table = summarized(hostile_records())
    groups = sections(table)
    pictures = {("toy", "em", ""): png(100), ("toy", "em", "slow"): png(32)}
    file.write_text(
        html(
            table,
            groups,
            HOSTILE,
            {HOSTILE: HOSTILE},
            [{"heatmap": png(32)} for _ in groups],
            pictures,
        ),
        encoding="utf-8",
    )
    return file.as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(
        (found for name in names if (found := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in $CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, address: str) -> Iterator[Any]:
    """Open the page or another file, with options of a browser context.

    At the end the fixture checks that it saw no console message and no request.
    """
    contexts, said, asked, given = [], [], [], {address}

    def opened(file: str = address, **options: Any) -> Any:
        given.add(file)
        context = chromium.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} <= given


@pytest.fixture
def page(open_page: Any) -> Any:
    return open_page()


START = ["slow", "soft", "broken", "partial", "none"]


def test_a_header_sorts_and_sorts_back(page: Any) -> None:
    assert names(page) == START
    head = ranking(page).get_by_role("columnheader", name="clean data", exact=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == ["none", "partial", "slow", "soft", "broken"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["broken", "soft", "slow", "partial", "none"]
    assert page.get_by_role("status").inner_text() == "sorted by clean data, ascending"
    ranking(page).get_by_role("button", name="mean over attacks").press("Space")
    assert names(page) == ["slow", "soft", "none", "broken", "partial"]  # no mean: last
    ranking(page).get_by_role("button", name="mean over attacks").click()
    assert names(page) == ["none", "soft", "slow", "broken", "partial"]
    assert head.get_attribute("aria-sort") == "none"
    cells = toy(page).locator("table.cells")
    cells.get_by_role("button", name="lsp[a=1]").click()
    assert cells.locator("tbody th").all_inner_texts()[0].startswith("rich")


def test_what_a_row_holds_moves_with_it(page: Any) -> None:
    ranking(page).get_by_role("button", name="soft").click()
    ranking(page).get_by_role("button", name="clean data", exact=True).click()
    order = (
        ranking(page)
        .locator("tbody > tr:visible")
        .evaluate_all("rows => rows.map((row) => row.className || row.cells[1].innerText)")
    )
    assert order[order.index("soft") + 1] == "detail"


def test_filters_by_data_set_victim_and_needs(page: Any) -> None:
    groups = page.locator("section.group")
    assert groups.count() == 3
    page.get_by_label("Victim").select_option("other")
    assert [group.is_visible() for group in groups.all()] == [True, False, True]
    page.get_by_label("Data set").select_option("toy")
    assert groups.locator("visible=true").count() > 0
    assert [group.is_visible() for group in groups.all()] == [False, False, True]
    page.get_by_role("button", name="Show all").click()
    assert [group.is_visible() for group in groups.all()] == [True, True, True]
    page.get_by_label("Needs").select_option("clean:500")
    assert [group.is_visible() for group in groups.all()] == [False, True, False]
    assert page.locator("tbody.entry:visible").count() == 1
    assert page.locator("table.cells tr.entry:visible th").all_inner_texts() == [
        "rich needs clean:500"
    ]
    assert (
        page.get_by_role("status").inner_text() == "1 of 12 rows shown, ranked by mean over attacks"
    )
    page.get_by_label("Needs").select_option(label="nothing")
    assert page.locator("tbody.entry:visible").count() == 11


def test_filters_by_a_part_of_the_name(page: Any) -> None:
    field = page.get_by_label("Defense", exact=True)
    field.fill("SO")
    assert toy(page).locator("tbody.entry:visible .name").all_inner_texts() == ["soft"]
    assert toy(page).locator(".when-mean svg .point:not(.out)").count() == 1
    field.fill("nobody")
    assert page.locator("section.group:visible").count() == 0
    assert page.get_by_text("No defense matches these filters").is_visible()
    field.press("Escape")
    assert field.input_value() == ""
    assert page.locator("section.group:visible").count() == 3
    field.press("Enter")  # sends no form anywhere
    assert page.locator("section.group:visible").count() == 3


def test_one_attack_is_ranked_by_and_shown_alone(page: Any) -> None:
    page.get_by_label("Attack", exact=True).select_option("em")
    # the other data set has no such attack
    assert page.locator("section.group:visible").count() == 2
    assert names(page) == ["partial", "slow", "soft", "none", "broken"]
    assert column(page, "one") == ["90.0", "76.0 ± 1.4", "61.0 ± 1.4", "11.0 ± 1.4", "failed"]
    # a defense that lacks a column has no rank here either
    assert column(page, "rank") == ["-", "1", "2", "-", "-"]
    assert column(page, "mean") == column(page, "worst") == []
    assert (
        ranking(page).get_by_role("columnheader", name="accuracy on em").get_attribute("aria-sort")
        == "descending"
    )
    heads = (
        page.locator("section.group:visible table.cells")
        .first.get_by_role("columnheader")
        .all_inner_texts()
    )
    assert [head.strip() for head in heads] == ["defense", "clean data", "em"]
    assert page.get_by_role("radio", name="worst attack").is_disabled()
    assert page.get_by_role("status").inner_text().endswith("ranked by accuracy on em")
    ranking(page).get_by_role("button", name="slow").click()
    assert page.locator(".cell:visible h4").all_inner_texts() == ["clean data", "em"]
    page.get_by_role("button", name="Show all").click()
    assert names(page)[:3] == ["slow", "soft", "none"]
    assert column(page, "one") == []


def test_the_worst_case_can_be_ranked_by(page: Any) -> None:
    bar = "cell => getComputedStyle(cell).backgroundSize"
    first = ranking(page).locator("tbody.entry").first
    assert "71" in first.locator("td.mean").evaluate(bar)
    assert first.locator("td.worst").evaluate(bar).startswith("0px")
    page.get_by_role("radio", name="worst attack").check()
    assert names(page) == ["slow", "soft", "none", "broken", "partial"]
    assert column(page, "rank")[:3] == ["1", "2", "-"]
    assert first.locator("td.mean").evaluate(bar).startswith("0px")
    assert "66" in first.locator("td.worst").evaluate(bar)
    assert toy(page).locator("svg.cost.worst").is_visible()
    assert not toy(page).locator("svg.cost.mean").is_visible()
    page.get_by_role("radio", name="worst attack").press("ArrowLeft")
    assert page.get_by_role("radio", name="mean over attacks").is_checked()
    assert toy(page).locator("svg.cost.mean").is_visible()


def test_a_row_opens_to_its_cells(page: Any) -> None:
    button = ranking(page).get_by_role("button", name="slow")
    assert button.get_attribute("aria-expanded") == "false"
    assert page.locator(".cell:visible").count() == 0
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    cells = page.get_by_role("group", name="Cells of slow")
    assert cells.locator("h4").all_inner_texts() == ["clean data", "em", "lsp[a=1]"]
    em = cells.locator(".cell").nth(1)
    assert em.locator("p").first.inner_text() == "76.0 ± 1.4 %, n = 2"
    assert em.get_by_role("img", name="Test accuracy over 2 epochs").is_visible()
    strip = em.get_by_role("img", name="clean, poisoned, ten times the perturbation, purified")
    boxes = strip.locator("use").evaluate_all(
        "uses => uses.map((use) => use.getBoundingClientRect().width)"
    )
    assert len(boxes) == 2
    assert boxes[0] > 2.5 * boxes[1] > 50
    em.get_by_text("command and record").click()
    assert "--attacks 'em[eps=0.5]' --defenses 'slow[quality=10]'" in em.locator("pre").inner_text()
    assert em.locator("pre").inner_text().endswith("--seeds 0,1")
    assert em.locator("dl").count() == 2
    assert em.get_by_text("key", exact=True).first.is_visible()
    button.click()
    assert page.locator(".cell:visible").count() == 0


def test_everything_can_be_reached_and_used_by_keyboard(page: Any) -> None:
    focused = "document.activeElement"
    here = f"{focused}.id || {focused}.className || {focused}.textContent.trim()"
    seen = []
    for _ in range(10):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(here))
    assert seen[:7] == ["theme", "data-set", "victim", "attack", "needs", "defense", "mean"]
    assert seen[7] == "reset"
    assert seen[8].endswith("scroll")
    assert seen[9] == "rank"
    while page.evaluate(here) != "expand":
        page.keyboard.press("Tab")
    button = "document.activeElement.getAttribute('aria-expanded')"
    page.keyboard.press("Enter")
    assert page.evaluate(button) == "true"
    page.keyboard.press("Space")
    assert page.evaluate(button) == "false"
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Escape")
    assert page.evaluate(here) == "expand"
    assert page.evaluate(button) == "false"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_chosen(scheme: str, open_page: Any) -> None:
    page = open_page(color_scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 27)"}
    button = page.get_by_role("button", name="Dark theme")
    assert page.evaluate(ground) == colours[scheme]
    assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
    button.press("Enter")
    assert page.evaluate(ground) == next(
        colour for name, colour in colours.items() if name != scheme
    )
    button.click()
    assert page.evaluate(ground) == colours[scheme]


def test_a_phone_scrolls_tables_and_not_the_page(open_page: Any) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    assert overflow(page) <= 0
    for button in page.locator(".expand").all():
        button.tap()
    for summary in page.locator("summary").all()[:8]:
        summary.tap()
    assert overflow(page) <= 0
    page.get_by_label("Attack", exact=True).select_option(LONG)
    assert overflow(page) <= 0
    drawer = page.locator(".drawer:visible").first
    box = drawer.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    region = page.locator(".scroll:visible").first
    region.evaluate("region => { region.scrollLeft = 200; }")
    # the content of a row stays in sight
    assert drawer.bounding_box()["x"] == pytest.approx(box["x"], abs=1)


def test_names_that_mean_harm_are_names(page: Any) -> None:
    assert page.title().startswith("<img src=x")
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE
    page.get_by_label("Attack", exact=True).select_option(HOSTILE)
    page.get_by_label("Defense", exact=True).fill("</script><b>")
    assert page.locator("tbody.entry:visible").count() == 1
    page.locator(".expand:visible").click()
    assert page.locator(".cell:visible h4").all_inner_texts()[1] == HOSTILE
    assert page.evaluate("window.hacked") is None


def test_without_scripts_all_cells_are_open(open_page: Any) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator(".cell:visible").count() == page.locator(".cell").count() > 20
    assert not page.get_by_label("Defense", exact=True).is_visible()
    assert not page.get_by_role("button", name="Dark theme").is_visible()


@pytest.mark.parametrize("width", [1280, 360])
def test_published_numbers_are_read_in_the_cells(
    width: int, open_page: Any, tmp_path: Path
) -> None:
    table = summarized(measured_records())
    groups = sections(table)
    file = tmp_path / "published.html"
    counterparts = find_counterparts(
        table, [*PUBLISHED, published("em", "jpeg10", 0.7, epochs=None)], "src2020"
    )
    file.write_text(
        html(table, groups, "t", {}, [{} for _ in groups], {}, counterparts), encoding="utf-8"
    )
    page = open_page(viewport={"width": width, "height": 900}, file=file.as_uri())
    cells = page.locator("table.cells")
    jpeg = (
        cells.locator("tbody tr", has=page.get_by_role("rowheader", name="jpeg", exact=True))
        .locator("td")
        .nth(1)
    )
    assert jpeg.inner_text().split() == ["75.0", "80.00a", "−5.0", "70.00a", "+5.0"]
    assert (
        jpeg.locator(".published").nth(1).get_attribute("title")
        == "src2020 published 70.00 %; not the same: epochs"
    )
    failed = cells.locator("td.failed .published")
    assert failed.inner_text() == "90.00a"
    style, colour = ("e => getComputedStyle(e).fontStyle", "e => getComputedStyle(e).color")
    assert failed.evaluate(style) == "normal"
    assert failed.evaluate(colour) == page.locator("body").evaluate(colour)
    cells.get_by_role("button", name="em").click()  # published numbers do not enter the order
    assert [text.split()[0] for text in cells.locator("tbody th").all_inner_texts()] == [
        "jpeg",
        "jpeg[quality=30]",
        "none",
        "dvae",
    ]
    page.locator("tbody.entry[data-defense=jpeg] .expand").click()
    card = page.get_by_role("group", name="Cells of jpeg", exact=True).locator(".cell").nth(1)
    assert (
        "Published by src2020: 70.00 %, ours +5.0 points. Not the same: epochs."
        in card.inner_text()
    )
    sources = page.locator("dl.sources")
    assert sources.locator("dt").all_inner_texts() == ["a"]
    assert "epochs: published 60 and not printed, ours 60" in sources.inner_text()
    assert overflow(page) <= 0


def test_the_file_alone_is_enough(open_page: Any, address: str) -> None:
    """The browser fetches nothing but the file itself, whatever the user presses.

    The fixture checks the requests.
    """
    page = open_page(offline=True)
    for button in page.get_by_role("button").all()[:12]:
        button.press("Enter")
    assert Path(address.removeprefix("file://")).stat().st_size < 400_000
