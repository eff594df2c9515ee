"""Write a comparison of two defenses: for the terminal, and as Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.analysis.comparison import ALPHA, COVERAGE, MARGIN, Comparison, Contrast
from benchmark.analysis.statistics.paired import FEWEST_FOR_TEST, SignFlip
from benchmark.analysis.table import SECONDS_IN_WORDS
from benchmark.report import typeset
from benchmark.report.markdown import escaped
from benchmark.report.numbers import (
    ABSENT,
    DOUBTED,
    marked,
    number,
    p_value,
    percent,
    signed,
    times,
)
from benchmark.report.terminal import plain, say
from benchmark.report.typeset import Block, Entry, PaperTable

HOW_TO_READ = (
    (
        "difference",
        "Accuracy of the first defense minus that of the second, in points, averaged over pairs. "
        "The two of a pair share attack, victim seed and craft seed: their victims began with the "
        "same weights and saw the images in the same order.",
    ),
    (
        "95 % interval",
        "BCa bootstrap interval of the difference (Efron 1987), over seeds: what other victim "
        "seeds would give, with the same attacks and the same crafted images. From few seeds it "
        "is too narrow.",
    ),
    (
        "win, tie, loss",
        f"A tie is a difference below {MARGIN} points, or one whose interval covers 0. An attack "
        "with too few pairs for an interval, or with a number in doubt, is undecided.",
    ),
    (
        "sign-flip test",
        "If the two defenses did equally well, each difference would be as likely as its "
        "negative. p is the share of all ways to choose the signs that bring the mean over "
        "attacks at least as far from 0 as it is. A mean that rests on few of the attacks is not "
        "significant, even where its interval, which takes the attacks as given, is narrow. Not "
        "corrected for the number of comparisons.",
    ),
    ("price", "Points of accuracy that a defense costs on clean data: undefended minus defended."),
)

_DASH = (
    "there is no pair. Numbers that the records hold of one defense alone are not shown, and "
    "cost is known from pairs only."
)


# In words


def title(c: Comparison) -> str:
    """The group of results that the comparison is about: ``cifar10 (resnet18, std60)``."""
    ratio = f", poison ratio {c.ratio:g}" if c.ratio != 1 else ""
    preset = f", preset {c.preset}" if c.preset else ""
    return f"{c.dataset} ({c.victim}, {c.protocol}{ratio}{preset})"


def verdict(c: Comparison) -> str:
    """Say what the records show and what they do not cover, in sentences that can be quoted."""
    size = f"{_counted(c.seeds, 'seed')}, {_counted(c.pairs, 'pair')}"
    if c.conclusion == "nothing":
        return f"On {title(c)}, nothing can be compared: {_why_nothing(c)}."
    if c.conclusion == "doubtful":
        why = " ".join(doubt.text for doubt in c.doubts)
        return (
            f"On {title(c)}, these results say nothing about {c.ours} and {c.reference} ({size}). "
            f"{why}"
        )
    if c.conclusion == "too little":
        sentences = (
            f"On {title(c)}, there is too little evidence to tell {c.ours} from {c.reference}: "
            f"{signed(c.mean.difference)} points {_over(c)} ({size}). At least {FEWEST_FOR_TEST} "
            "pairs are needed; run more seeds."
        )
        return " ".join([sentences, *_unequal(c)])
    tests = f"sign-flip test {p_value(c.by_pair.p)}" + (
        f", by whole seeds {p_value(c.by_seed.p)}" if c.by_seed.decidable else ""
    )
    evidence = f"{_over(c)} ({size}, {tests}), with {balance(c)}"
    difference, points = signed(c.mean.difference), f"{number(abs(c.mean.difference))} points"
    # few seeds allow no firmer words, not even on one attack
    up, down = ("better", "worse") if c.by_seed.decidable else ("ahead", "behind")
    better = f"{up} on {', '.join(c.of('win'))}" if c.of("win") else ""
    worse = f"{down} on {', '.join(c.of('loss'))}" if c.of("loss") else ""
    best = "is the better one" if c.by_seed.decidable else "is ahead in these runs"
    findings = {
        "better": f"{c.ours} is better than {c.reference} by {points} {evidence}."
        + (f" It is {worse}." if worse else ""),
        "worse": f"{c.ours} is worse than {c.reference} by {points} {evidence}."
        + (f" It is {better}." if better else ""),
        "ahead": f"{c.ours} is ahead of {c.reference} in these runs, by {points} {evidence}."
        + (f" It is {worse}." if worse else ""),
        "behind": f"{c.ours} is behind {c.reference} in these runs, by {points} {evidence}."
        + (f" It is {better}." if better else ""),
        "small": f"{c.ours} and {c.reference} differ by {difference} points {evidence}: less than "
        f"the {MARGIN} points that count here.",
        "depends": f"it depends on the attack whether {c.ours} or {c.reference} {best}: {c.ours} "
        f"is {better} and {worse}. "
        f"The difference is {difference} points {evidence}.",
        "not shown": f"no difference between {c.ours} and {c.reference} is shown: {difference} "
        f"points {evidence}. "
        "That is no evidence that they are equal"
        + (f": {c.ours} is {better or worse}." if better or worse else "."),
    }
    return " ".join([f"On {title(c)}, {findings[c.conclusion]}", *_unequal(c), *_not_covered(c)])


def _why_nothing(c: Comparison) -> str:
    apart = [contrast.column for contrast in c.attacks if contrast.apart]
    if not apart:
        return f"there is no attack on which both {c.ours} and {c.reference} have a result"
    return (
        f"on {', '.join(apart)}, both {c.ours} and {c.reference} have results, but none of the "
        "same victim seed and craft seed"
    )


def _unequal(c: Comparison) -> list[str]:
    """Say which attacks have how many seeds; empty if all have the same number.

    The mean gives an attack with few seeds as much weight as one with many.
    """
    by_seeds: dict[int, list[str]] = {}
    for contrast in c.attacks:
        if contrast.points:
            by_seeds.setdefault(contrast.seeds, []).append(contrast.column)
    if len(by_seeds) < 2:
        return []
    counts = [f"{_counted(n, 'seed')} on {', '.join(by_seeds[n])}" for n in sorted(by_seeds)]
    return [
        f"Some attacks have fewer seeds than others ({'; '.join(counts)}), and the mean weighs "
        "all attacks alike."
    ]


def _not_covered(c: Comparison) -> list[str]:
    sentences = []
    if c.conclusion in ("ahead", "behind", "small") and not c.by_seed.decidable:
        sentences.append(
            f"These runs show no more: with fewer than {FEWEST_FOR_TEST} seeds, whole seeds decide "
            "nothing, and p takes the pairs of one seed as independent of each other, which they "
            "need not be."
        )
    if c.seeds == 1:
        sentences.append(
            "One victim seed: how results vary with initial weights and batches is not covered."
        )
    if c.craft_seeds == 1:
        sentences.append(
            "One craft seed: how results vary with the crafting of poisons and with purification "
            "is not covered."
        )
    return sentences


def statements(c: Comparison) -> list[tuple[str, str]]:
    """Everything beside the verdict and the table, as pairs of a title and a sentence."""
    columns = (*c.attacks, c.mean, c.clean)
    has_dash = any(not column.points and math.isnan(column.difference) for column in columns)
    dash = [("Dash", _DASH)] if has_dash else []
    prices = (
        f"{c.ours} {_known(c.price_ours, 'points')}, {c.reference} "
        f"{_known(c.price_reference, 'points')}"
    )
    seconds = (
        f"{c.ours} {_known(c.seconds_ours, 's')}, {c.reference} {_known(c.seconds_reference, 's')}"
    )
    clock = SECONDS_IN_WORDS[c.clock]
    clock = clock[0].upper() + clock[1:] + " from the records"
    by_remark: dict[str, list[str]] = {}
    for column in columns:
        if column.remark:
            by_remark.setdefault(column.remark, []).append(column.column)
    notes = [f"{', '.join(names)}: {remark}." for remark, names in by_remark.items()]
    fewest = min((len(column.points) for column in columns if column.interval), default=0)
    if fewest in COVERAGE:
        notes.append(
            f"Intervals of {fewest} pairs are too narrow: where differences are normal they cover "
            f"{COVERAGE[fewest]} %."
        )
    doubts = [("!", DOUBTED)] if any(column.doubted for column in columns) else []
    if c.conclusion != "doubtful":  # else the verdict names them
        doubts += [("In doubt", doubt.text) for doubt in c.doubts]
    return [
        *dash,
        *doubts,
        ("Attacks", f"{c.ours} has {balance(c)}."),
        (
            "Sign-flip test",
            f"each pair for itself: {_tested(c.by_pair, 'pair')}; whole seeds: "
            f"{_tested(c.by_seed, 'seed')}.",
        ),
        ("Price on clean data", f"{prices}."),
        (
            "Cost",
            f"{seconds} to purify and train ({times(c.cost_ratio)}). {clock}"
            f"{', noisy' * (c.clock == 'seconds')}.",
        ),
        *(("Note", note) for note in (*notes, *c.notes)),
    ]


def _known(value: float, unit: str) -> str:
    return "not known" if math.isnan(value) else f"{number(value)} {unit}"


def balance(c: Comparison) -> str:
    """Count the outcomes: ``3 wins, 1 tie, 0 losses``, and undecided attacks, if any."""
    undecided = len(c.of("undecided"))
    counts = [
        _counted(len(c.of("win")), "win"),
        _counted(len(c.of("tie")), "tie"),
        _counted(len(c.of("loss")), "loss", "losses"),
    ]
    return ", ".join([*counts, *([f"{undecided} undecided"] if undecided else [])])


def _over(c: Comparison) -> str:
    if len(c.attacks) == 1:
        return f"on {c.attacks[0].column}"
    return (
        "in the mean over "
        f"{f'{c.compared} of ' if c.compared < len(c.attacks) else ''}{len(c.attacks)} attacks"
    )


def _tested(test: SignFlip, unit: str) -> str:
    if not test.decidable:
        return (
            f"not decidable with {_counted(test.units, unit)}, since fewer than "
            f"{FEWEST_FOR_TEST} cannot give p < {ALPHA}"
        )
    how = f"exact, all {2**test.units:,} sign patterns"
    if test.error:
        how = f"standard error {test.error:.4f}, from random sign patterns"
    return f"{p_value(test.p)} over {_counted(test.units, unit)} (two-sided, {how})"


def _counted(n: int, noun: str, plural: str = "") -> str:
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


# As tables


def paper_table(c: Comparison, name: str) -> PaperTable:
    """A table with one line an attack, then the mean over attacks and the clean data.

    Accuracies are in %, differences in points.
    """
    attacks = tuple(
        _line(contrast, contrast.outcome if contrast.points else ABSENT) for contrast in c.attacks
    )
    return PaperTable(
        name=name,
        caption=verdict(c),
        labels=("attack",),
        columns=("undefended", c.ours, c.reference, "difference", "95 % interval", "outcome"),
        values=(),
        blocks=(
            *([Block("", attacks)] if attacks else []),
            Block("", (_line(c.mean, ""), _line(c.clean, ""))),
        ),
        notes=(
            "Accuracies in %, differences in points.",
            *(f"{what}: {sentence}" for what, sentence in statements(c)),
        ),
        align="rrrrll",
    )


def _line(c: Contrast, outcome: str) -> tuple[str, tuple[Entry, ...]]:
    interval = f"[{signed(c.interval[0])}, {signed(c.interval[1])}]" if c.interval else ABSENT
    accs = [
        marked(percent(getattr(c, side)), side in c.doubted)
        for side in ("undefended", "ours", "reference")
    ]
    texts = (*accs, signed(c.difference), interval, outcome)
    return c.column, tuple(Entry(text, ()) for text in texts)


def _rows(table: PaperTable) -> list[list[str]]:
    return [
        [label, *(entry.text for entry in entries)]
        for block in table.blocks
        for label, entries in block.lines
    ]


def print_comparison(c: Comparison, console: Console) -> None:
    """Print the table, the statements, and the verdict last."""
    table = paper_table(c, "")
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title_, letter in zip(table.head, table.alignment, strict=True):
        shown.add_column(
            Text(plain(title_, console)),
            justify="right" if letter == "r" else "left",
            overflow="fold",
        )
    for row in _rows(table):
        shown.add_row(*(Text(plain(text, console)) for text in row))
    if not console.is_terminal:  # a file or a pipe has no width
        shown.width = console.measure(
            shown, options=console.options.update(max_width=10_000)
        ).maximum
    console.print()
    say(console, f"{c.ours} against {c.reference} on {title(c)}", "bold")
    console.print(shown, crop=False)
    for note in table.notes:
        say(console, note)
    say(console, table.caption, "bold")


def comparison_markdown(
    comparisons: Sequence[Comparison], heading: str, facts: Mapping[str, str]
) -> str:
    """All comparisons as GitHub-flavoured Markdown."""
    lines = [f"# {escaped(heading)}", ""]
    for c in comparisons:
        lines += [f"## {escaped(title(c))}", "", typeset.table_markdown(paper_table(c, ""))]
    lines += [
        "## How to read this",
        "",
        *(f"- **{term}**: {meaning}" for term, meaning in HOW_TO_READ),
        "",
    ]
    lines += [
        "## Environment and command",
        "",
        *(f"- {escaped(name)}: {escaped(value)}" for name, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def comparison_latex(comparisons: Sequence[Comparison]) -> str:
    """A ``table`` for each comparison, with the verdict as its caption."""
    names = ["comparison", *(f"comparison-{index}" for index in range(2, len(comparisons) + 1))]
    return "\n".join(
        typeset.table_latex(paper_table(c, name))
        for c, name in zip(comparisons, names, strict=False)
    )


def comparison_html(
    comparisons: Sequence[Comparison], heading: str, facts: Mapping[str, str]
) -> str:
    """One self-contained page that loads nothing; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = [paper_table(c, "") for c in comparisons]
    parts = [
        {
            "title": title(c),
            "table": table,
            "rows": list(zip(_rows(table), _marks(c), strict=True)),
            "statements": statements(c),
        }
        for c, table in zip(comparisons, tables, strict=True)
    ]
    return jinja.get_template("comparison.html.j2").render(
        heading=heading, parts=parts, how_to_read=HOW_TO_READ, facts=facts
    )


def _marks(c: Comparison) -> list[tuple[float, ...]]:
    """The places of each row's interval and difference in its plot, in % of the width.

    50 stands for no difference. A row without a number has no places.
    """
    triples = [
        (*(contrast.interval or (contrast.difference, contrast.difference)), contrast.difference)
        for contrast in (*c.attacks, c.mean, c.clean)
    ]
    known = [value for triple in triples for value in triple if not math.isnan(value)]
    widest = max(map(abs, known), default=0.0) or 1.0

    def places(triple: Sequence[float]) -> tuple[float, ...]:
        if math.isnan(triple[2]):
            return ()
        return tuple(round(50 + 45 * value / widest, 2) for value in triple)

    return [places(triple) for triple in triples]
