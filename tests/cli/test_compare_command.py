"""The command ``compare``, and what it prints and writes of a comparison."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.analysis.comparison import Comparison
from benchmark.catalogue.registry import ROOT
from benchmark.report.comparison import (
    comparison_html,
    comparison_latex,
    comparison_markdown,
    print_comparison,
)
from benchmark.running.last_run import last_selection, records_of
from benchmark.storage.store import Store
from benchmark.workspace.versus import folder_name
from support.command_line import DIM, FAILING, Call, plugin, watch
from support.made_up_records import (
    BY_HAND,
    GOLDEN,
    NASTY,
    SIX_HIGH,
    compared,
    example,
    printed,
    records,
)

# How it is written


def test_texts_equal_the_golden_files() -> None:
    """The golden files show the made-up comparison.

    ``UEBENCH_REGENERATE=1 pytest tests/cli/test_compare_command.py`` writes them anew. Look at the
    difference before committing it.
    """
    c = compared(example())
    for name, text in (
        ("comparison.md", comparison_markdown([c], "mine against other", {"command": "compare"})),
        ("comparison.tex", comparison_latex([c])),
    ):
        if os.environ.get("UEBENCH_REGENERATE") == "1":
            (GOLDEN / name).write_text(text, encoding="utf-8")
        assert text == (GOLDEN / name).read_text(encoding="utf-8")


def baseline() -> Comparison:
    """D-VAE against JPEG in the records that come with the repository."""
    folder = ROOT / "results" / "baselines"
    selection = last_selection(folder / "cifar10-lite")
    assert selection is not None
    records = records_of(Store(folder / "store"), selection)
    return compared(
        [replace(record, dataset="CIFAR-10 (JPEG copy)") for record in records], "dvae", "jpeg"
    )


def test_the_page_shows_what_is_printed() -> None:
    """The test regenerates this text as it does the golden files."""
    page = ROOT / "docs" / "compare.md"
    for name, c in (("made-up", compared(example())), ("baseline", baseline())):
        text = page.read_text(encoding="utf-8")
        block = re.search(rf"(<!-- {name} -->\n```text\n)(.*?)(\n```\n)", text, re.S)
        assert block is not None
        if os.environ.get("UEBENCH_REGENERATE") == "1":
            page.write_text(
                text.replace(block[0], block[1] + printed(c, width=80) + block[3]), encoding="utf-8"
            )
        else:
            assert block[2] == printed(c, width=80)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_loads_nothing_and_draws_each_row() -> None:
    page = Page(
        comparison_html(
            [compared(example()), compared(records(BY_HAND))],
            "mine against other",
            {"command": "compare"},
        )
    )
    assert page.links == ["data:,"]
    assert "script" not in page.tags
    assert page.tags.count("section") == 4
    assert page.tags.count("tr") == (1 + 5) + (1 + 4)
    text = comparison_html([compared(records(BY_HAND))], "t", {})
    dots = [float(place) for place in re.findall(r'class="dot" style="left:([\d.]+)%"', text)]
    # 6 is the widest: the upper end of em
    assert dots == pytest.approx([50 + 45 * d / 6 for d in (4, 0, 2, 3)], abs=0.01)


def nasty() -> Comparison:
    return compared(
        records(
            {f"{NASTY}\\": {f"[{NASTY}": SIX_HIGH, f"*{NASTY}": [0.5] * 6}},
            dataset=f"ünï {NASTY} 数",
        ),
        f"[{NASTY}",
        f"*{NASTY}",
    )


def test_names_are_only_text_in_every_form() -> None:
    c = nasty()
    page = comparison_html([c], NASTY, {NASTY: NASTY})
    assert "<b>" not in page
    assert f"[{NASTY}" in Page(page).texts
    shown = comparison_markdown([c], NASTY, {NASTY: NASTY})
    assert "<b>" not in shown
    assert all(
        len(re.findall(r"(?<!\\)\|", line)) == 8
        for line in shown.splitlines()
        if line.startswith("|")
    )
    assert NASTY in printed(c, width=400)
    assert NASTY in printed(c, width=400, force_terminal=True, color_system=None)
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_comparison(c, Console(file=file, width=200))
    assert b"to purify and train (1.00x)" in raw.getvalue()


def test_a_file_gets_whole_lines_and_a_narrow_terminal_loses_no_number() -> None:
    c = compared(example())
    assert "em                       10.0  74.8   71.7        +3.2  [+2.7, +3.6]   win" in printed(
        c, width=20
    )
    narrow = printed(c, width=40, force_terminal=True, color_system=None)
    assert max(map(len, narrow.splitlines())) <= 40
    assert "…" not in narrow


def test_the_latex_compiles(compile_latex: Callable[[str], bytes]) -> None:
    assert compile_latex(comparison_latex([compared(example()), nasty()])).startswith(b"%PDF")


# The command


def test_a_plugin_is_compared_and_then_read_from_records(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    mine = plugin(tmp_path, "dim", DIM)
    args = (
        "compare",
        "dim[share=0.25]",
        "--against",
        "grayscale",
        "--suite",
        tiny,
        "--plugin",
        mine,
        "--attacks",
        "lsp",
    )
    first = call(*args, "--executor", "inline")
    assert first.code == 0, first.out + first.err
    # (lsp and clean data) x 3 defenses
    assert "dim[share=0.25] against grayscale: 6 cells in 12 stages" in first.out
    # one epoch on 40 images teaches nothing
    assert "these results say nothing about dim[share=0.25] and grayscale (1 seed, 1 pair). " in (
        first.out
    )
    assert "Undefended accuracy on clean data is 50.0 %, near chance (50.0 %): " in first.out
    assert "dim[share=0.25] needs clean:3." in first.out
    (folder,) = (tmp_path / "results" / "tiny").iterdir()
    assert folder.name.startswith("compare-dim-share-0.25-c9a6d5-vs-grayscale-attacks-lsp-")
    assert str(folder.relative_to(tmp_path) / "comparison.html") in first.out
    assert {file.name for file in folder.iterdir()} == {
        "comparison.html",
        "comparison.md",
        "comparison.tex",
        "events.jsonl",
    }
    before = (folder / "comparison.tex").read_bytes()
    again = call(*args, "--policy", "collect")
    assert again.code == 0
    assert "0 done, 12 cached" in again.out + again.err
    assert (folder / "comparison.tex").read_bytes() == before
    assert "--policy collect" in (folder / "comparison.md").read_text(encoding="utf-8")


def test_other_questions_have_other_folders() -> None:
    def name(against: str = "jpeg", settings: Sequence[str] = (), **axes: list[object]) -> str:
        return folder_name("mine", against, axes, settings)

    assert name() == "compare-mine-vs-jpeg"
    asked = [
        name(),
        name("jpeg[quality=30]"),
        name(protocols=["lite"]),
        name(protocols=["quick"]),
        name(attacks=["em"]),
        name(attacks=["em", "lsp"]),
        name(attacks=["x" * 100]),
        name(attacks=["x" * 101]),
        name(seeds=[0, 1]),
        name(settings=["precision=fp32"]),
    ]
    assert len(set(asked)) == len(asked)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,200}", one) for one in asked)
    assert name(seeds=[0, 1], attacks=["em", "lsp"]) == name(seeds=[1, 0, 1], attacks=["lsp", "em"])
    ten, thirty = "jpeg.quality=10", "jpeg.quality=30"
    # the last value counts
    assert name(settings=[ten, thirty, "seeds=0"]) == name(settings=["seeds=0", thirty])
    assert name(settings=[thirty, ten]) == name(settings=[ten])
    assert name(protocols=["lite"]).startswith("compare-mine-vs-jpeg-protocols-lite-")


def test_a_comparison_with_other_axes_overwrites_none(
    call: Call, tiny: str, tmp_path: Path
) -> None:
    args = ("compare", "grayscale", "--against", "none", "--suite", tiny, "--executor", "inline")
    assert call(*args).code == 0
    first = tmp_path / "results" / "tiny" / "compare-grayscale-vs-none" / "comparison.md"
    before = first.read_bytes()
    other = call(*args, "--set", "protocol.epochs=2")
    assert other.code == 0, other.err
    assert first.read_bytes() == before
    found = sorted(path.name for path in first.parent.parent.iterdir())
    assert len(found) == 2
    assert f"{found[1]}/comparison.html" in other.out


def test_a_failing_defense_is_said_to_have_failed(call: Call, tiny: str, tmp_path: Path) -> None:
    mine = plugin(tmp_path, "failing", FAILING)
    result = call(
        "compare",
        "failing",
        "--against",
        "none",
        "--suite",
        tiny,
        "--plugin",
        mine,
        "--executor",
        "inline",
    )
    assert result.code == 1
    assert "nothing can be compared" in result.out
    assert "lsp, clean data: no pair: failing failed." in result.out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ("grayscale", "--against", "jpeg", "--policy", "collect"),
            1,
            "6 of 6 cells have no result yet",
        ),
        (
            ("grayscal", "--against", "jpeg"),
            2,
            'unknown defense "grayscal"; did you mean "grayscale"?',
        ),
        (
            ("jpeg", "--against", "jpeg[quality=10]"),
            2,
            '"jpeg" and "jpeg[quality=10]" are one defense with the same parameters',
        ),
        (("jpeg", "--against", "jpeg[quality=0]"), 2, "1 problem"),
        (("jpeg",), 2, "Missing option '--against'"),
        (
            ("jpeg", "--against", "grayscale", "--set", "defenses=none,jpeg"),
            2,
            "compare takes the two defenses that it is given",
        ),
    ],
)
def test_what_cannot_be_compared_says_why(
    call: Call, tiny: str, args: tuple[str, ...], code: int, message: str
) -> None:
    result = call("compare", *args, "--suite", tiny)
    assert result.code == code
    assert message in result.err


@pytest.mark.e2e
def test_help_loads_nothing_heavy(tmp_path: Path, data_root: Path) -> None:
    found, printed_ = watch(tmp_path, data_root, ["compare", "--help"])
    assert found == [(0, [])]
    assert "--against" in printed_
