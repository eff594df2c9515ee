"""Write the tables of the documentation from the records in ``results/baselines``.

A page marks the place of a table with the lines ``<!-- begin: NAME -->`` and ``<!-- end -->``;
this script fills it. ``--check`` writes nothing and fails if a page holds another table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmark.analysis.agreement import agreements, compared_records
from benchmark.analysis.baseline import read_baseline
from benchmark.analysis.columns import MEANINGS
from benchmark.analysis.counterparts import Counterparts, find_counterparts
from benchmark.analysis.leaderboard import Summary, leaderboard
from benchmark.analysis.published import load_published
from benchmark.analysis.statistics.agreement import Cells, tau_cells, tau_within
from benchmark.analysis.table import to_table
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.report import markdown
from benchmark.report.agreement import COLUMNS, agreement_row, discordant_lines
from benchmark.report.published import published_tables
from benchmark.report.sections import percent
from benchmark.report.tables import paper_tables
from benchmark.report.typeset import table_markdown
from benchmark.running.last_run import last_selection, records_of
from benchmark.storage.record import Record
from benchmark.storage.store import Store

BASELINES = ROOT / "results" / "baselines"
PAGES = (ROOT / "README.md", ROOT / "docs")
CLASS_WISE = {
    "em[granularity=class,noise_steps=1]": "em, class-wise",
    "em[granularity=class,class_share=1.0]": "em, class-wise",
}
SWEPT = {  # what each defense of the suite dvae-sweep changes
    "dvae": "width 16, decoder 32, latent 64, kd 5, 6 epochs, batch 32",
    "dvae[decoder_width=16]": "narrower decoder",
    "dvae[latent=128]": "wider code",
    "dvae[width=32]": "wider encoder",
    "dvae[kd=3.0]": "less rate, as published",
    "dvae[kd=8.0]": "more rate",
    "dvae[epochs=18,hinge_from=6]": "three times the steps",
    "dvae[width=32,kd=3.0]": "wider encoder and less rate",
    "dvae[width=64,kd=3.0]": "both as published",
    "vae": "width 16, decoder 32, latent 64, rate 5",
    "jpeg": "quality 10",
}
PURIFIED = ("ar", "cuda", "tap", "sep")
# short name -> the parameters by which the records are found
PURIFIERS: Mapping[str, Mapping[str, object]] = {
    "jpeg": {"name": "jpeg"},
    "dvae, width 32, 5 nats": {"name": "dvae", "width": 32, "kd": 5.0},
    "dvae, width 32, 3 nats": {"name": "dvae", "width": 32, "kd": 3.0},
    "dvae, width 64, 3 nats": {"name": "dvae", "width": 64, "kd": 3.0},
}
SLICES = ("lsp", "ops", "em", "tap", "ar", "rem", "sep", "ntga")  # in this order
AGREEING = ("cifar10-lite", "cifar10-fast")  # the suites that are compared with papers
PAPERS = ("bridgepure2025", "apbench2023", "iss2023")
FAR_OFF = ("em", "grayscale")  # the attack and the defense of the cell with the most opposite pairs


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table whose first ``texts`` columns align left."""
    aligned = [column < texts for column in range(len(head))]
    return "\n".join(markdown.table(head, [list(row) for row in rows], aligned))


def points(records: Sequence[Record]) -> str:
    """Return mean accuracy in %, with the standard deviation (n - 1) of several seeds."""
    values = [100 * (record.test_acc or 0) for record in records]
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


@cache
def accepted(suite: str) -> tuple[Record, ...]:
    """Read the accepted records of a suite, ``results/baselines/SUITE.jsonl``."""
    return tuple(read_baseline(BASELINES / f"{suite}.jsonl"))


@cache
def stored(suite: str) -> tuple[Record, ...]:
    """Read the records of the last run of a suite from the store in ``results/baselines``."""
    selection = last_selection(BASELINES / suite)
    if selection is None:
        raise FileNotFoundError(f"{BASELINES / suite} holds no selection of cells")
    return tuple(records_of(Store(BASELINES / "store"), selection))


def ranking(records: Sequence[Record]) -> str:
    """Return a table with one row a defense, best first, and one column an attack."""
    attacks = sorted({record.attack for record in records}, key=lambda name: (name != "none", name))
    rows = []
    for row in leaderboard(to_table(records)).to_dict("records"):
        own = [record for record in records if record.defense == row["defense"]]
        cells = [points([r for r in own if r.attack == attack]) for attack in attacks]
        rank, name = str(row["rank"]), str(row["defense"])
        if row["is_undefended"]:
            rank, name = "-", "none (undefended)"
        rows.append([rank, name, *cells, percent(row["mean"], row["std"])])
    titles = [CLASS_WISE.get(attack, attack) for attack in attacks[1:]]
    head = ["rank", "defense", "clean data", *titles, "mean over attacks"]
    return table(head, rows, texts=2)


def three_seeds() -> list[Record]:
    """Return the accepted records of ``quick`` that its table shows: craft seeds 0 to 2, fp32."""
    return [r for r in accepted("quick") if r.precision == "fp32" and r.craft_seed < 3]


def first_look() -> str:
    """Return the columns of the README: each defense of ``quick``, best first."""
    records = three_seeds()
    board = leaderboard(to_table(records)).sort_values("is_undefended", kind="stable")
    names = [str(name) for name in board["defense"]]
    clean = [
        points([r for r in records if (r.defense, r.attack) == (name, "none")]) for name in names
    ]
    means = [percent(row["mean"], row["std"]) for row in board.to_dict("records")]
    head = ["", *("undefended" if name == "none" else name for name in names)]
    return table(head, [["clean data", *clean], ["mean of EM and LSP", *means]])


def spread() -> str:
    """Return how D-VAE and the undefended victim spread over craft seeds, in both precisions."""
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in accepted("quick"):
        if record.defense in ("none", "dvae"):
            by_precision = cells.setdefault((record.defense, record.attack), {})
            by_precision.setdefault(record.precision, []).append(100 * (record.test_acc or 0))
    rows = []
    for (defense, attack), by_precision in sorted(
        cells.items(), key=lambda cell: (cell[0][0] != "dvae", cell[0][1] != "none", cell[0][1])
    ):
        row = ["clean data" if attack == "none" else attack]
        row += ["undefended" if defense == "none" else defense]
        for precision in ("fp32", "bf16"):
            values = by_precision[precision]
            row += [f"{mean(values):.1f} ± {stdev(values):.1f} ({len(values)})"]
            row += [f"{min(values):.1f} to {max(values):.1f}"]
        rows.append(row)
    head = ["images", "defense", "fp32 (seeds)", "range", "bf16 (seeds)", "range"]
    return table(head, rows, texts=2)


def paper_scale() -> str:
    """Return the columns that ``perf/paper_slice.py`` has computed, and name the missing cells."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in Store(BASELINES / "paper" / "store").records():
        cell = record.attack_spec["name"], record.defense_spec["name"]
        found.setdefault(cell, []).append(record)
    defenses = ("none", "grayscale", "jpeg", "dvae")
    rows = [
        ["clean data" if attack == "none" else attack]
        + [points(found[attack, d]) if (attack, d) in found else "missing" for d in defenses]
        for attack in ("none", *SLICES)
    ]
    return table(["images", *defenses], rows)


def attacks_undefended() -> str:
    """Return every attack of the suite ``cifar10-attacks`` with what verification measured."""
    records = {record.attack: record for record in stored("cifar10-attacks")}
    clean = 100 * (records.pop("none").test_acc or 0)
    rows = []
    for name, record in sorted(records.items(), key=lambda item: item[1].test_acc or 0):
        facts, acc = record.facts["poison"], 100 * (record.test_acc or 0)
        rows.append(
            [
                CLASS_WISE.get(name, name) + _older(record.attack_spec),
                f"{acc:.1f}",
                f"{clean - acc:.1f}",
                f"{255 * facts['linf']:.0f}",
                f"{facts['l2_mean']:.2f}",
                f"{facts['psnr_mean']:.1f}",
                f"{100 * facts['probe']:.0f}",
                f"{record.seconds['poison']:.1f}" if "+" not in name else "-",
            ]
        )
    head = ["attack", "accuracy", f"points below {clean:.1f}", "L-inf / 255", "mean L2"]
    return table([*head, "PSNR dB", "linear probe %", "crafting s"], rows)


def _older(spec: Mapping[str, Any]) -> str:
    """Name the version of a recorded attack that is not the version of today."""
    cards = Registry().cards("attack")
    now = cards[spec["name"]].version if spec.get("name") in cards else None
    return f" (version {spec['version']})" if now not in (None, spec["version"]) else ""


def purified() -> str:
    """Return four attacks behind the purifiers that the store holds."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in Store(BASELINES / "store").records():
        own = {"name": record.defense_spec["name"], **record.defense_spec["params"]}
        for name, wanted in PURIFIERS.items():
            if record.attack in PURIFIED and wanted.items() <= own.items():
                found.setdefault((name, record.attack), []).append(record)
    rows = []
    for name in PURIFIERS:
        cells = [found.get((name, attack), []) for attack in PURIFIED]
        marks = ["".join({_older(record.attack_spec) for record in cell}) for cell in cells]
        rows.append([name, *(points(cell) + mark for cell, mark in zip(cells, marks, strict=True))])
    return table(["defense", *PURIFIED], rows)


def swept() -> str:
    """Return the suite ``dvae-sweep``: accuracy, the rate of stage 2 and PSNR on EM."""
    records = {(record.defense, record.attack): record for record in stored("dvae-sweep")}
    rows = []
    for defense, change in SWEPT.items():
        facts = records[defense, "em"].facts["purify"]
        rate = f"{facts['stage2_kl']:.2f}" if "stage2_kl" in facts else "-"
        cells = [points([records[defense, attack]]) for attack in ("none", "em", "ops")]
        rows.append([f"`{defense}`", change, *cells, rate, f"{facts['psnr_mean']:.1f}"])
    head = ["defense", "what is changed", "clean data", "em", "ops", "rate 2", "PSNR dB"]
    return table(head, rows, texts=2)


def report_attacks() -> str:
    """Return ``table-attacks`` of the suite ``cifar10-lite``, as ``report`` writes it."""
    norms = {name: card.norm for name, card in Registry().cards("attack").items()}
    made = paper_tables(Summary(to_table(_cifar10())), norms)
    (one,) = (table_markdown(paper) for paper in made if paper.name == "attacks")
    return one.partition("\n\n")[2].strip()


def report_published() -> str:
    """Return the rows on EM of ``table-published-apbench2023`` of the suite ``cifar10-lite``."""
    cards = {kind: Registry().cards(kind) for kind in ("attack", "defense")}
    summary = Summary(to_table(stored("cifar10-lite")))
    wanted = "apbench2023[dataset=cifar10]"
    (one,) = published_tables(find_counterparts(summary, load_published(), wanted, cards))
    blocks = tuple(block for block in one.blocks if block.title == "em")
    return table_markdown(replace(one, blocks=blocks, notes=())).partition("\n\n")[2].strip()


def _agreements(suite: str, left_out: tuple[str, str] | None = None) -> list[Counterparts]:
    """Compare a suite with ``PAPERS``, without the cell of one attack and one defense."""
    made = [
        record
        for record in compared_records(stored(suite), Store(BASELINES / "store").records())
        if (record.attack_spec["name"], record.defense_spec["name"]) != left_out
    ]
    cards = {kind: Registry().cards(kind) for kind in ("attack", "defense")}
    wanted = [f"{paper}[dataset=cifar10]" for paper in PAPERS]
    return agreements(Summary(to_table(made)), load_published(), wanted, cards)


def _measured() -> list[str]:
    return [suite for suite in AGREEING if last_selection(BASELINES / suite) is not None]


def agreement() -> str:
    """Return how well the suites agree with papers on the order of attacks and defenses."""
    rows = [
        agreement_row(f"{suite}, {one.source}", one.cells, one.within)
        for suite in _measured()
        for one in _agreements(suite)
    ]
    absent = [
        f"`{suite}` has no records here yet." for suite in AGREEING if suite not in _measured()
    ]
    return "\n\n".join([table(["suite, source", *COLUMNS[1:]], rows), *absent])


def agreement_pairs() -> str:
    """Return the pairs of defenses that a paper and a suite order otherwise on one attack."""
    rows = [
        [f"{suite}, {one.source}", markdown.escaped(line)]
        for suite in _measured()
        for one in _agreements(suite)
        for line in discordant_lines(one, same_attack=True)
    ]
    return table(["suite, source", "attack and defenses, in %"], rows, texts=2)


def agreement_yardsticks() -> str:
    """Return the agreement of papers with each other, and that of a suite without one cell."""
    papers: dict[str, dict[tuple[str, str], float]] = {paper: {} for paper in PAPERS}
    for row in load_published():
        if (row.source in papers and (row.dataset, row.victim) == ("cifar10", "resnet18")) and (
            row.ratio == 1 and row.our_attack and row.our_defense and row.defense != "none"
        ):
            cell = str(row.our_attack), str(row.our_defense)
            papers[row.source].setdefault(cell, row.mean)

    def line(name: str, first: Cells, second: Cells) -> list[str]:
        return agreement_row(name, tau_cells(first, second), tau_within(first, second))

    rows = [
        line(f"{one}, {other}", papers[one], papers[other])
        for one, other in combinations(PAPERS, 2)
        if papers[one].keys() & papers[other].keys()
    ]
    left_out = f"cifar10-lite without {FAR_OFF[1]} on {FAR_OFF[0]}"
    whole, rest = _agreements("cifar10-lite"), _agreements("cifar10-lite", FAR_OFF)
    rows += [
        agreement_row(f"{left_out}, {one.source}", one.cells, one.within)
        for one, other in zip(rest, whole, strict=True)
        if one.cells.cells < other.cells.cells
    ]
    return table(["tables compared", *COLUMNS[1:]], rows)


def _cifar10() -> list[Record]:
    return [replace(record, dataset="CIFAR-10") for record in stored("cifar10-lite")]


def report_columns() -> str:
    """Return the columns of the long table and their meanings."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in MEANINGS.items()]
    return "\n".join(["| column | meaning |", "|---|---|", *rows])


TABLES: dict[str, Callable[[], str]] = {
    "quick": lambda: ranking(three_seeds()),
    "quick-spread": spread,
    "first-look": first_look,
    "cifar10-lite": lambda: ranking(stored("cifar10-lite")),
    "paper-scale": paper_scale,
    "cifar10-attacks": attacks_undefended,
    "purified": purified,
    "dvae-sweep": swept,
    "report-attacks": report_attacks,
    "report-published": report_published,
    "report-columns": report_columns,
    "agreement": agreement,
    "agreement-pairs": agreement_pairs,
    "agreement-yardsticks": agreement_yardsticks,
}
PLACE = re.compile(r"(<!-- begin: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def filled(text: str) -> str:
    """Return a page with every marked table made anew.

    Raises:
        KeyError: if the page names a table that is not in ``TABLES``.
    """
    return PLACE.sub(lambda place: f"{place[1]}\n{TABLES[place[2]]()}\n\n{place[3]}", text)


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [file for page in PAGES for file in (page.rglob("*.md") if page.is_dir() else [page])]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--check", action="store_true", help="write nothing; fail if a table is old")
    return made


def main() -> int:
    """Write the tables, or check them; return the exit status."""
    check, stale = parser().parse_args().check, []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = filled(text)
        if made != text:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(made, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'a table differs from the records; run' if check else 'written'}", end="")
        print(" python docs/tables.py" if check else "")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
