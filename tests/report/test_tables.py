"""The tables of a paper: golden files, marks, means left out, and names that are hard for LaTeX."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.report.tables import norm_of, paper_tables
from benchmark.report.typeset import (
    FORMS,
    Block,
    Entry,
    PaperTable,
    best_two,
    table_csv,
    table_latex,
    table_markdown,
    tex,
)
from benchmark.storage.record import Record
from support.made_up_records import NASTY
from support.reports import cell, record, summarized

GOLDEN = Path(__file__).parents[1] / "golden"
NORMS = {"em": "linf", "tap": "linf", "lsp": "l2", "ops": "l0"}
HOSTILE = [
    NASTY,
    "100% #1 a_b^c~d\\e {f}",
    "[w=1]",
    "*",
    "é — “…” 漢 😀 --x",
    "\\input{/etc/passwd}",
    "$\\alpha$ & \\\\",
    "a\nb\x07",
]


def records() -> list[Record]:
    """Return four attacks of three norms, two victims, three poison ratios, a privileged defense.

    One cell failed, one is absent, one is partial.
    """
    made = [
        *cell("none", "none", 0.9, 0.92),
        *cell("none", "soft", 0.8, 0.82),
        *cell("none", "rich", 0.85, 0.86, needs=("clean:500",)),
    ]
    made += cell("none", "weak", 0.7, 0.71)
    for attack, accs in {
        "em": (0.1, 0.6, 0.4, 0.7),
        "tap": (0.12, 0.5, 0.5, 0.7),
        "lsp": (0.2, 0.4, 0.45, 0.7),
        "ops": (0.3, 0.64, 0.2, 0.75),
    }.items():
        for defense, acc in zip(("none", "soft", "weak", "rich"), accs, strict=True):
            if (attack, defense) == ("ops", "soft"):
                made += cell(attack, defense, None, None)
            elif (attack, defense) == ("lsp", "weak"):
                made += cell(attack, defense, acc, None)
            elif (attack, defense) != ("tap", "rich"):
                made += cell(
                    attack,
                    defense,
                    acc,
                    acc + 0.02,
                    needs=("clean:500",) if defense == "rich" else (),
                )
    for attack in ("em", "lsp"):
        made += [
            *cell(attack, "none", 0.3, victim="other"),
            *cell(attack, "soft", 0.65, victim="other"),
        ]
    for ratio in (0.2, 0.5):
        made += [
            *cell("em", "none", 0.9 - ratio, ratio=ratio),
            *cell("em", "soft", 0.8 - ratio / 4, ratio=ratio),
        ]
    return made


@pytest.fixture(scope="module")
def tables() -> dict[str, PaperTable]:
    return {table.name: table for table in paper_tables(summarized(records()), NORMS)}


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("name", ["attacks-3", "victims", "ratios"])
def test_tables_equal_the_golden_files(
    name: str, ending: str, tables: dict[str, PaperTable]
) -> None:
    """The golden files hold the tables.

    ``UEBENCH_REGENERATE=1 pytest tests/report/test_tables.py`` writes them anew. Look at the
    difference before committing it.
    """
    file, text = GOLDEN / f"table-{name}.{ending}", FORMS[ending](tables[name])
    if os.environ.get("UEBENCH_REGENERATE") == "1":
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_there_is_a_table_for_each_group_and_axis_and_no_other(
    tables: dict[str, PaperTable],
) -> None:
    assert list(tables) == ["attacks", "attacks-2", "attacks-3", "attacks-4", "victims", "ratios"]
    assert [table.name for table in paper_tables(summarized(cell("em", "soft", 0.5)), {})] == [
        "attacks"
    ]


# What is shown


def entries(table: PaperTable) -> dict[tuple[str, str, str], Entry]:
    """Return (block, line, column) -> entry."""
    return {
        (block.title, label, column): entry
        for block in table.blocks
        for label, row in block.lines
        for column, entry in zip(table.columns, row, strict=True)
    }


def test_means_are_over_all_attacks_or_absent(tables: dict[str, PaperTable]) -> None:
    shown = entries(tables["attacks-3"])
    # soft has 61.0 on em and 51.0 on tap; on ops it failed, so it has no mean over attacks
    assert shown["L∞", "mean", "soft"].text == "56.0 ± 1.4"
    assert shown["", "mean over attacks", "soft"].text == "-"
    # weak: 41, 51, 45 (one seed of two) and 21; the first seed alone covers all of them
    assert shown["", "mean over attacks", "weak"].text == "39.5"
    assert shown["", "mean over attacks", "weak"].values == ("0.395000", "", "1", "0")
    assert shown["L∞", "mean", "rich †"].text == "-"  # lacks tap
    assert ("L2", "mean", "soft") not in shown  # one attack has nothing to average


def test_cells_say_what_happened(tables: dict[str, PaperTable]) -> None:
    shown = entries(tables["attacks-3"])
    assert shown["L0", "ops", "soft"].text == "failed"
    assert shown["L∞", "tap", "rich †"].text == "-"
    assert shown["L2", "lsp", "weak"].text == "45.0*"
    assert shown["L2", "lsp", "weak"].values == ("0.450000", "", "1", "1")
    assert {note.partition(":")[0] for note in tables["attacks-3"].notes} == {
        "Dagger",
        "Star",
        "Failed",
        "Dash",
    }
    assert tables["attacks-4"].notes == ()


def test_best_and_second_are_those_without_privileges(tables: dict[str, PaperTable]) -> None:
    shown = entries(tables["attacks-3"])
    marks = {column: shown["L∞", "em", column].mark for column in tables["attacks-3"].columns}
    assert marks == {"none": "", "soft": "best", "weak": "second", "rich †": ""}
    assert shown["L∞", "tap", "soft"].mark == shown["L∞", "tap", "weak"].mark == "best"  # both 51.0
    assert "\\textbf{61.0~$\\pm$~1.4} & \\underline{41.0~$\\pm$~1.4}" in table_latex(
        tables["attacks-3"]
    )
    assert "**61.0 ± 1.4**" in table_markdown(tables["attacks-3"])


def test_a_mean_is_not_shown_beside_one_over_other_attacks(tables: dict[str, PaperTable]) -> None:
    shown = entries(tables["victims"])
    assert shown["em", "soft", "other"].text == "65.0"
    assert [shown["mean over attacks", "none", victim].text for victim in ("net", "other")] == [
        "19.0 ± 1.4",
        "-",
    ]


def test_ratio_zero_is_clean_data(tables: dict[str, PaperTable]) -> None:
    table = tables["ratios"]
    assert table.columns == ("0 (clean)", "0.2", "0.5", "1")
    assert [entry.text for entry in dict(table.blocks[0].lines)["none"]] == [
        "91.0 ± 1.4",
        "70.0",
        "40.0",
        "11.0 ± 1.4",
    ]


def test_one_seed_and_one_attack_are_said(tables: dict[str, PaperTable]) -> None:
    (table,) = paper_tables(summarized(cell("em", "soft", 0.5)), {})
    assert table.caption == "Test accuracy in % on toy, victim net, protocol quick; one seed."
    assert [[label for label, _ in block.lines] for block in table.blocks] == [["em"]]
    (failed,) = paper_tables(summarized(cell("em", "soft", None)), NORMS)
    assert "nothing has finished" in failed.caption
    assert "mean ± standard deviation over 1 to 2 seeds" in tables["attacks-3"].caption


@pytest.mark.parametrize(
    ("values", "teams", "marks"),
    [
        ([0.5, 0.7, 0.6], [0, 0, 0], ["", "best", "second"]),
        ([0.7, 0.7, 0.6], [0, 0, 0], ["best", "best", "second"]),
        ([0.7001, 0.7, 0.6], [0, 0, 0], ["best", "best", "second"]),  # equal as printed
        ([0.7, 0.7], [0, 0], ["best", "best"]),
        ([0.7], [0], [""]),
        ([0.7, math.nan], [0, 0], ["", ""]),
        ([0.9, 0.7, 0.6, 0.5, 0.8], [None, 0, 0, 1, 1], ["", "best", "second", "second", "best"]),
    ],
)
def test_marks(values: list[float], teams: list[int | None], marks: list[str]) -> None:
    assert best_two(values, teams) == marks


@pytest.mark.parametrize(
    ("spec", "facts", "norm"),
    [
        ('{"name": "em"}', "{}", "linf"),
        ('{"name": "em"}', '{"poison": {"norm": "l2"}}', "l2"),
        ('{"name": "em"}', '{"poison": {"norm": "of my own"}}', "linf"),
        ('{"name": "em", "then": {"name": "ops"}}', '{"poison": {"l0_max": 3}}', "mixed"),
        ('{"name": "em", "then": {"name": "tap"}}', "{}", "linf"),
        ('{"name": "plugin"}', "{}", "unknown"),
        ("{}", "{}", "unknown"),
    ],
)
def test_the_norm_of_an_attack(spec: str, facts: str, norm: str) -> None:
    assert norm_of(spec, facts, NORMS) == norm


# LaTeX and Markdown


def hostile() -> list[PaperTable]:
    made = [
        record(attack, name, 0.5, dataset=name, error=name)
        for name in HOSTILE
        for attack in ("none", *HOSTILE)
    ]
    return paper_tables(summarized(made), dict.fromkeys(HOSTILE, "linf"))


def check_structure(text: str) -> None:
    """Check that environments and braces are closed, and lines have the declared columns."""
    plain = re.sub(r"\\[{}%&#_$\\]", "", text)
    assert plain.count("{") == plain.count("}")
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    assert environments == [
        ("begin", "table"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table"),
    ]
    declared = re.search(r"\\begin\{tabular\}\{([lrc]+)\}", text)
    assert declared is not None
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(declared[1])}
    assert text.isascii() or set(filter(lambda letter: ord(letter) > 126, text)) <= {"é"}


def test_latex_is_whole_whatever_the_names(tables: dict[str, PaperTable]) -> None:
    for table in [*tables.values(), *hostile()]:
        check_structure(table_latex(table))


def test_names_are_escaped_in_latex() -> None:
    assert tex("100% #1 a_b") == r"100\% \#1 a\_b"
    assert tex("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert tex("[w=1]") == "{[}w=1]"
    assert tex("*") == "{*}"
    assert [tex(text) for text in ("-18.3", "[-1.3, -0.5]")] == ["$-$18.3", "{[}$-$1.3, $-$0.5]"]
    assert [tex(text) for text in ("-", "x-2", "2025-11-26", "a -b")] == [
        "-",
        "x-2",
        "2025-11-26",
        "a -b",
    ]
    assert tex("51.0 ± 1.4") == r"51.0~$\pm$~1.4"
    assert tex("漢 😀 a\nb\x07") == "{[}U+6F22] [U+1F600] a b[U+0007]"
    assert "\\input" not in "".join(table_latex(table) for table in hostile())


def test_names_are_escaped_in_markdown() -> None:
    for table in hostile():
        text = table_markdown(table)
        assert "<b>" not in text
        assert (
            len(
                {
                    line.replace("\\|", "").count("|")
                    for line in text.splitlines()
                    if line.startswith("| ")
                }
            )
            == 1
        )
    linked = PaperTable(
        "x",
        "[here](http://evil)",
        ("a",),
        ("b",),
        ("b",),
        (Block("", (("l", (Entry("t", ("t",)),)),)),),
    )
    assert "](" not in table_markdown(linked).replace("\\](", "")


def test_csv_has_numbers_and_names_as_they_are(tables: dict[str, PaperTable]) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(tables["attacks-3"]))))
    em = next(row for row in rows if row["attack"] == "em")
    assert (em["norm"], em["soft mean"], em["soft n"], em["soft failed"]) == (
        "L∞",
        "0.610000",
        "2",
        "0",
    )
    # repeated, so that each row stands alone
    assert next(row for row in rows if row["attack"] == "tap")["norm"] == "L∞"
    odd = list(csv.reader(io.StringIO(table_csv(hostile()[0]))))
    assert len({len(row) for row in odd}) == 1


def test_latex_compiles(
    tables: dict[str, PaperTable], compile_latex: Callable[[str], bytes]
) -> None:
    """The test needs a TeX; without one, the other tests check the structure alone."""
    body = "\n\\clearpage\n".join(table_latex(table) for table in [*tables.values(), *hostile()])
    assert compile_latex(body).startswith(b"%PDF")
