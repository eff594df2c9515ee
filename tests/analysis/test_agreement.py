"""Agreement of orders: against scipy, counting by hand, and the choice of records and sources."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.agreement import agreements, compared_records
from benchmark.analysis.statistics.agreement import (
    discordant,
    tau_b,
    tau_cells,
    tau_over,
    tau_within,
)
from benchmark.report.agreement import agreement_markdown, discordant_lines
from benchmark.storage.record import Record
from support.published_numbers import measured, only, published
from support.reports import summarized

# The statistics


def table(rows: dict[str, list[float]]) -> dict[tuple[str, str], float]:
    return {
        (attack, f"d{i}"): value
        for attack, values in rows.items()
        for i, value in enumerate(values)
    }


def test_without_near_ties_tau_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = rng.integers(0, 4, (2, 6)).astype(float)
        expected = pytest.approx(stats.kendalltau(x, y).statistic, nan_ok=True)
        assert tau_b(x, y) == expected
        first, second = table({"a": [*x[:2]], "b": [*x[2:]]}), table({"a": [*y[:2]], "b": [*y[2:]]})
        assert tau_cells(first, second).value == expected
    both = tau_b(np.array([[1.0, 2, 3], [1, 2, 3]]), np.array([[1.0, 2, 3], [3, 2, 1]]))
    assert both.tolist() == [1, -1]


def test_gaps_below_two_points_are_ties() -> None:
    """Counted by hand: of the six pairs, here five are decided and there five.

    Here d0 and d1 are tied (1.9 points), there d1 and d3; two points are a gap. Both decide the
    pairs 02, 03, 12, 23: 03, 12 and 23 alike and 02 in opposite order, so (3 - 1) / 5.
    """
    ours = table({"a": [0.400, 0.419, 0.600, 0.300]})
    theirs = table({"a": [0.800, 0.710, 0.780, 0.700]})
    found = tau_cells(ours, theirs)
    assert found.value == pytest.approx((3 - 1) / 5)
    assert (found.attacks, found.defenses, found.cells, found.pairs) == (1, 4, 4, 6)
    assert tau_within(ours, theirs).value == found.value
    assert discordant(ours, theirs) == [(("a", "d2"), ("a", "d0"))]


def test_tau_within_pools_the_pairs_of_all_attacks() -> None:
    """Alike minus opposite: 3 + 1 + 1 + 0; decided here 3 + 3 + 1 + 0, there 3 + 3 + 1 + 3."""
    ours = table({"a": [1, 2, 3], "b": [1, 2, 3], "two": [1, 2], "tied": [5, 5, 5], "one": [1]})
    theirs = table(
        {"a": [1, 2, 3], "b": [2, 1, 3], "two": [1, 2], "tied": [1, 2, 3], "one": [3], "x": [1, 2]}
    )
    found = tau_within(ours, theirs)
    assert found.value == pytest.approx(5 / math.sqrt(7 * 10))
    assert (found.attacks, found.defenses, found.cells, found.pairs) == (4, 3, 11, 10)
    assert (found.interval, found.reason) == (None, "fewer than 5 attacks give no interval")
    cells = tau_cells(ours, theirs)
    assert (cells.attacks, cells.cells, cells.pairs) == (5, 12, 66)
    assert cells.interval is not None


def test_tau_over_attacks_is_that_of_the_means() -> None:
    ours = table({"a": [1, 2, 9], "b": [9, 2, 3]})  # means 5, 2, 6
    theirs = table({"a": [3, 1, 2], "b": [3, 1, 2]})
    assert tau_over(ours, theirs).value == pytest.approx(1 / 3)
    gaps = table({"a": [1, 2, 9, math.nan], "b": [math.nan, 2, 3, 4]})
    assert (
        tau_over(gaps, table({"a": [1, 2, 3, 4], "b": [1, 2, 3, 4]})).reason
        == "fewer than 3 defenses cover the same attacks in both"
    )


def test_the_interval_is_that_of_all_resamples() -> None:
    """One of five attacks has the order reversed, so a resample's tau-b is 1 - 2 k / 5.

    The count k of that attack in a resample is binomial.
    """
    ours = table({name: [1, 2, 3] for name in "abcde"})
    theirs = table({**{name: [1, 2, 3] for name in "abcd"}, "e": [3, 2, 1]})
    found = tau_within(ours, theirs)
    assert found.value == pytest.approx(0.6)
    quantiles = [1 - 2 * stats.binom(5, 0.2).ppf(share) / 5 for share in (0.975, 0.025)]
    assert found.interval == pytest.approx(quantiles)


def test_the_interval_over_cells_draws_whole_attacks() -> None:
    """Each attack has one cell here and there, so that a resample is of attacks as of cells.

    A resample draws each of five attacks some number of times; its tau-b is computed by scipy from
    the drawn cells, copies included, which are ties.
    """
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 3, 5, 4])
    ours, theirs = (table({name: [v] for name, v in zip("abcde", z, strict=True)}) for z in (x, y))
    counts = np.random.default_rng(7).multinomial(5, np.full(5, 0.2), 2000)
    draws = [
        stats.kendalltau(np.repeat(x, count), np.repeat(y, count)).statistic
        for count in np.unique(counts, axis=0)
    ]
    weights = np.unique(counts, axis=0, return_counts=True)[1]
    found = tau_cells(ours, theirs, seed=7)
    assert found.interval == pytest.approx(
        np.nanquantile(np.repeat(draws, weights), [0.025, 0.975]).tolist()
    )
    assert tau_cells(ours, theirs, seed=7) == found
    assert tau_cells(ours, theirs) == tau_cells(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ({"a": [0.1]}, {"a": [0.2]}, "fewer than two cells are in both"),
        ({"a": [0.1, math.nan]}, {"a": [0.2, 0.3]}, "fewer than two cells are in both"),
        ({"a": [0.1, 0.11]}, {"a": [0.2, 0.3]}, "one of the two has no gap of 2 points"),
    ],
)
def test_why_there_is_no_tau(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], reason: str
) -> None:
    found = tau_cells(table(ours), table(theirs))
    assert math.isnan(found.value)
    assert found.reason == reason


def test_discordant_pairs_come_widest_first() -> None:
    ours = {("tap", "dvae"): 0.2, ("tap", "jpeg"): 0.6, ("em", "jpeg"): 0.7, ("em", "at"): 0.1}
    theirs = {("tap", "dvae"): 0.9, ("tap", "jpeg"): 0.8, ("em", "jpeg"): 0.85, ("em", "at"): 0.1}
    assert discordant(ours, theirs) == [
        (("em", "jpeg"), ("tap", "dvae")),  # 50 + 5 points
        (("tap", "jpeg"), ("tap", "dvae")),  # 40 + 10 points
    ]


# The records


def spec(name: str, version: int, **params: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "params": params}


def keys(records: list[Record]) -> list[tuple[str, str, str]]:
    return [(record.attack, record.defense, record.key) for record in records]


def test_records_of_other_runs_are_added_if_only_attack_or_seed_differ() -> None:
    suite = [
        *measured("none", "jpeg", 0.9),
        *measured("em", "none", 0.1),
        *measured("em", "jpeg", 0.7, dataset="mine"),
    ]
    more = measured("rem", "jpeg", 0.6)
    found = compared_records(
        suite,
        [
            *suite,
            *more,
            *measured("rem", "none", 0.1),
            *measured("tap", "jpeg", None),
            *measured("rem", "dvae", 0.5),
            *measured("rem", "jpeg", 0.5, victim="big"),
            *measured("rem", "jpeg", 0.5, ratio=0.5),
            *measured("rem", "jpeg", 0.5, precision="bf16"),
            *measured("rem", "jpeg", 0.5, protocol_spec={"epochs": 9}),
        ],
    )
    assert keys(found) == keys([suite[2], *more])
    assert {record.dataset for record in found} == {"mine"}


def test_the_newest_version_of_an_attack_counts() -> None:
    first, second = (
        measured("em", "jpeg", 0.5, attack_spec=spec("em", version)) for version in (1, 2)
    )
    other = measured("em", "jpeg", 0.5, attack_spec=spec("em", 1, eps=0.1))
    undefended = measured("em", "none", 0.5, attack_spec=spec("em", 3))
    assert compared_records([*first, *second, *other, *undefended]) == [*second, *other]


# The sources

SOURCE = [
    published("em", "jpeg10", 0.8),
    published("em", "dvae", 0.9),
    published("em", "none", 0.1),
    published("rem", "jpeg10", 0.7),
    published("em", "jpeg10", 0.5, source="one2020"),
    published("em", "jpeg10", 0.5, source="else2020", dataset="other"),
]


def test_cells_are_paired_by_the_names_of_the_methods() -> None:
    runs = [
        *measured("em", "jpeg", 0.6),
        *measured("em", "jpeg[quality=30]", 0.1),  # is not what the source has
        *measured("em", "dvae", 0.4),
        *measured("rem", "jpeg", 0.3),
    ]
    group = only(agreements(summarized(runs), SOURCE))  # the source with two cells or more
    assert group.source == "src2020"
    assert (group.cells.cells, group.cells.pairs, group.within.pairs) == (3, 3, 1)
    assert group.cells.value == pytest.approx(1 / 3)
    assert group.within.value == -1
    assert discordant_lines(group, same_attack=True) == [
        "em: jpeg 60.0 > dvae 40.0 here, 80.0 < 90.0 there"
    ]
    assert discordant_lines(group, same_attack=False) == []
    text = agreement_markdown([group], "lite", {"command": "uebench agree lite"})
    assert (
        "| src2020 |       2 |        2 |     3 | 0.33 |             - |  -1.00 |     1 |" in text
    )
    assert "- there is no interval: fewer than 5 attacks give no interval" in text
    assert "- em: jpeg 60.0 > dvae 40.0 here, 80.0 &lt; 90.0 there" in text
    assert "- command: `uebench agree lite`" in text


def test_pairs_of_two_attacks_name_both() -> None:
    runs = [*measured("em", "jpeg", 0.3), *measured("rem", "jpeg", 0.6)]
    group = only(agreements(summarized(runs), SOURCE, ["src2020"]))
    assert discordant_lines(group, same_attack=False) == [
        "jpeg on rem 60.0 > jpeg on em 30.0 here, 70.0 < 80.0 there"
    ]


def test_a_suite_without_shared_cells_is_told_what_to_do() -> None:
    elsewhere = summarized(
        measured("em", "jpeg", 0.5, dataset="photos", dataset_spec={"name": "folder"})
    )
    with pytest.raises(
        ValueError, match=r"no published source shares two cells .* photos; .*\[dataset=cifar10\]"
    ):
        agreements(elsewhere, SOURCE)
    with pytest.raises(ValueError, match="nothing here has a counterpart in src2020"):
        agreements(elsewhere, SOURCE, ["src2020"])
    one = only(agreements(summarized(measured("em", "jpeg", 0.5)), SOURCE, ["src2020"]))
    assert one.cells.reason == "fewer than two cells are in both"
