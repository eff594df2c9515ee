"""Counterparts: which measured cell a published number belongs to, and what differs.

Also whether both order the defenses alike.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.analysis.counterparts import Counterparts, find_counterparts
from benchmark.analysis.naming import shown_value
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import parse_spec
from benchmark.report.published import agreement
from support.published_numbers import ROWS, measured, only, published, records
from support.reports import record, summarized


def test_pairs_are_of_the_same_methods_and_nothing_is_averaged() -> None:
    found = only(find_counterparts(summarized(records()), ROWS, "src2020"))
    pairs = [
        (pair.attack, pair.defense, pair.published.mean, pair.n, pair.failed)
        for pair in found.pairs
    ]
    assert pairs == [
        ("none", "none", 0.95, 1, 0),
        ("em", "none", 0.2, 2, 0),
        ("em", "none", 0.22, 2, 0),  # printed twice, hence shown twice
        ("em", "dvae", 0.9, 0, 1),
        ("em", "jpeg", 0.8, 1, 0),  # quality 10, and not 30
    ]
    assert found.pairs[1].mean == pytest.approx(0.11)
    assert found.differences == ()
    assert {pair.differs for pair in found.pairs} == {()}


def test_differences_of_protocol_are_told_in_words(registry: Registry) -> None:
    other: dict[str, Any] = {
        "victim": "small",
        "ratio": 0.8,
        "protocol_spec": {"epochs": 4},
        "dataset": "mine",
        "dataset_spec": {"name": "folder", "train_per_class": 100},
        "attack_spec": {
            "name": "em",
            "params": {"granularity": "sample", "eps": 4 / 255, "max_rounds": 3, "step": 10 / 255},
        },
        "defense_spec": {"name": "dvae", "params": {"width": 16, "lr": 0.005}},
    }
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    rows = [published("em", "dvae", 0.9, epochs=None), published("em", "dvae", 0.5, victim="rare")]
    rows.append(published("em", "none", 0.3))  # so that "net" is the victim with the most numbers
    found = only(
        find_counterparts(
            summarized([record("em", "dvae", 0.5, **other)]), rows, "src2020[dataset=toy]", cards
        )
    )
    assert [pair.published.victim for pair in found.pairs] == ["net"]
    assert found.pairs[0].differs == (
        "data set",
        "victim",
        "epochs",
        "poison ratio",
        "budget",
        "attack",
        "defense",
    )
    rounds, step = (
        shown_value(registry.card("attack", "em").params[name].default)
        for name in ("max_rounds", "step")
    )
    assert "/255" in step
    assert found.differences == (
        "data set: published toy, ours mine, 100 training images a class",
        "victim: published net, ours small",
        "epochs: published not printed, ours 4",
        "poison ratio: published 1, ours 0.8",
        f"attack em: ours has max_rounds=3 (default {rounds}), step=10/255 (default {step})",
        "defense dvae: ours has width=16 (default 64)",
        "budget of em: published 8/255, ours 4/255",
    )


def test_adversarial_training_in_l2_is_compared_with_the_defaults_of_l2(
    registry: Registry,
) -> None:
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    rows = [published("em", "at_l2_0.5", 0.5), published("em", "at_l2_0.75", 0.6)]

    def found(text: str) -> Counterparts:
        params = dict(registry.resolve("defense", parse_spec(text)).params)
        runs = measured("em", text, 0.4, defense_spec={"name": "at", "params": params})
        return only(find_counterparts(summarized(runs), rows, "src2020", cards))

    same = found("at[norm=l2]")
    assert [pair.published.defense for pair in same.pairs] == ["at_l2_0.5"]
    assert not [text for text in same.differences if text.startswith("defense")]
    wider = found("at[norm=l2,eps=0.75,step=0.15]")
    assert [pair.published.defense for pair in wider.pairs] == ["at_l2_0.75"]
    told = "defense at[norm=l2,eps=0.75,step=0.15]: ours has step=0.15 (default 0.1)"
    assert [text for text in wider.differences if text.startswith("defense")] == [told]
    with pytest.raises(ValueError, match="nothing here has a counterpart"):
        found("at[norm=l2,start=normal]")


def test_our_victim_and_ratio_are_taken_where_the_source_has_them() -> None:
    big = only(
        find_counterparts(summarized(measured("em", "none", 0.1, victim="big")), ROWS, "src2020")
    )
    assert [pair.published.mean for pair in big.pairs] == [0.6]
    half = only(
        find_counterparts(summarized(measured("em", "none", 0.1, ratio=0.5)), ROWS, "src2020")
    )
    assert [(pair.published.mean, pair.differs) for pair in half.pairs] == [(0.5, ())]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("src2002", 'unknown source "src2002" of published results; did you mean "src2020"?'),
        ("src2020[dataset=tyo]", 'src2020 has no data set "tyo"; did you mean "toy"?'),
        ("src2020[victim=net]", r"expected src2020, or src2020\[dataset=NAME\] with one of toy"),
    ],
)
def test_an_unknown_source_is_told_what_there_is(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_counterparts(summarized(records()), ROWS, wanted)


def test_nothing_in_common_is_an_error_that_says_what_to_do() -> None:
    table = summarized(measured("em", "none", 0.1, dataset_spec={"name": "folder"}))
    has = r"has the data sets toy and the attacks em, em_classwise, none, rem; "
    with pytest.raises(ValueError, match=has + r"src2020\[dataset=NAME\]"):
        find_counterparts(table, ROWS, "src2020")


def order(
    defenses: tuple[str, ...], attacks: int, ours: dict[str, float], theirs: dict[str, float]
) -> Counterparts:
    """The measured and the published accuracies are the same on every attack.

    The attacks are one method whose identifiers the source has.
    """
    names = ["em", "rem", "sem", "tap", "ntga"][:attacks]
    specs = {
        "jpeg10": ("jpeg", {"quality": 10, "test": False}),
        "bdr2": ("bdr", {"bits": 2, "test": False}),
        "dvae": ("dvae", {}),
    }
    params = {"em": {"granularity": "sample"}, "tap": {"targeted": True}}
    made, rows = [], []
    for attack in names:
        for name in defenses:
            method, settings = specs[name]
            spec: dict[str, Any] = {
                "attack_spec": {"name": attack, "params": params.get(attack, {})},
                "defense_spec": {"name": method, "params": settings},
            }
            made.append(record(attack, method, ours[name], dataset_spec={"name": "toy"}, **spec))
            rows.append(published(attack, name, theirs[name]))
    return only(find_counterparts(summarized(made), rows, "src2020"))


def test_agreement_of_orders() -> None:
    ours = {"jpeg10": 0.5, "bdr2": 0.4, "dvae": 0.3}
    same = order(("jpeg10", "bdr2", "dvae"), 5, ours, {"jpeg10": 0.9, "bdr2": 0.8, "dvae": 0.7})
    assert (same.within.value, same.within.interval, same.over.value, same.over.interval) == (
        1,
        (1, 1),
        1,
        (1, 1),
    )
    swapped = order(("jpeg10", "bdr2", "dvae"), 4, ours, {"jpeg10": 0.8, "bdr2": 0.9, "dvae": 0.7})
    assert swapped.within.value == pytest.approx(1 / 3)
    assert swapped.within.interval is None
    assert agreement(swapped)[1] == (
        "Order of the defenses within an attack: Kendall's τ-b 0.33 without an interval "
        "(fewer than 5 attacks give no interval), over 4 attacks, 3 defenses and 12 pairs."
    )
    # of 66 pairs of cells, the 18 of equal defenses are ties; jpeg and bdr make 16 in reverse
    assert swapped.cells.value == pytest.approx((32 - 16) / 48)
    assert {(ahead.defense, behind.defense) for ahead, behind in swapped.discordant} == {
        ("jpeg", "bdr")
    }
    assert len(swapped.discordant) == 16
    few = order(("jpeg10", "bdr2"), 5, ours, ours)
    assert few.within.value == 1
    assert (
        "no rank agreement can be given, since fewer than 3 defenses cover the same attacks"
        in agreement(few)[2]
    )


def test_an_older_version_is_told(registry: Registry) -> None:
    cards = {kind: registry.cards(kind) for kind in ("attack", "defense")}
    now = registry.card("attack", "sep").version
    rows = [published("sep", "jpeg10", 0.8)]
    for version, told in (
        (now, ()),
        (now - 1, (f"attack sep: ours has version {now - 1} (now {now})",)),
    ):
        spec = {"name": "sep", "version": version, "params": {}}
        runs = measured("sep", "jpeg", 0.5, attack_spec=spec)
        group = only(find_counterparts(summarized(runs), rows, "src2020", cards))
        assert group.differences == told
