"""Labels and presets in the table: settings that differ are told apart and never mixed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.analysis.leaderboard import leaderboard
from benchmark.analysis.table import to_table
from benchmark.storage.record import Record
from support.made_up_records import plain


def record(attack: str, defense: str, acc: float | None, *, seed: int = 0, **values: Any) -> Record:
    return plain(attack, defense, acc, seed, values)


def test_one_label_for_two_settings_is_told_apart() -> None:
    records = [
        record(
            "a", "x", acc, key=str(width), defense_spec={"name": "x", "version": 1, "width": width}
        )
        for width, acc in ((8, 0.5), (16, 0.6))
    ]
    assert list(leaderboard(to_table(records))["defense"]) == ["x (width=16)", "x (width=8)"]
    nested = [
        record(
            "a", "x", 0.5, key=str(width), defense_spec={"name": "x", "params": {"width": width}}
        )
        for width in (8, 16)
    ]
    assert list(to_table(nested)["defense"]) == ["x (width=16)", "x (width=8)"]


def spelled(label: str, *, acc: float = 0.5, attack: str = "a", **params: Any) -> Record:
    return record(
        attack,
        label,
        acc,
        key=f"{label}{params}",
        defense_spec={"name": "x", "params": params, "version": 1},
    )


def test_labels_of_several_runs_say_all_that_differs() -> None:
    """Each run wrote its labels under the parameters of its own suite.

    A reader of the records of all runs does not have those suites at hand.
    """
    made = [
        spelled("x", kd=5.0, width=32, deep=True, eps=8 / 255),
        spelled("x[kd=3.0]", kd=3.0, width=32, deep=True, eps=8 / 255),
        spelled("x[width=64]", kd=5.0, width=64, deep=True, eps=0.2),
        record("a", "y", 0.5, defense_spec={"name": "y", "params": {"kd": 1.0}}),
    ]
    labels = {
        "x (eps=8/255, kd=5.0, width=32)",
        "x[kd=3.0] (eps=8/255, width=32)",
        "x[width=64] (eps=0.2, kd=5.0)",
        "y",
    }
    assert set(to_table(made, mixed=True)["defense"]) == labels
    # a suite's own labels stay as they are
    assert set(to_table(made)["defense"]) == {"x", "x[kd=3.0]", "x[width=64]", "y"}


def test_labels_of_several_runs_are_never_shared_by_two_settings() -> None:
    made = [
        spelled("x[kd=3.0]", kd=3.0, width=8),
        spelled("x[kd=3.0]", kd=3.0, width=16),
        spelled("x[kd=3.0]", kd=4.0, width=16),
    ]
    assert to_table(made, mixed=True)["defense"].nunique() == 3
    # a parameter that came later
    later = [spelled("x", width=8), spelled("x[deep=true]", width=8, deep=True)]
    assert set(to_table(later, mixed=True)["defense"]) == {"x (deep=default)", "x[deep=true]"}
    parts = [
        record(
            "e+o",
            "x",
            0.5,
            key=str(n),
            attack_spec={"name": "e", "params": {}, "then": {"name": "o", "params": {"pixels": n}}},
        )
        for n in (1, 2)
    ]
    assert set(to_table(parts, mixed=True)["attack"]) == {"e+o (o.pixels=1)", "e+o (o.pixels=2)"}


def test_labels_of_chains_say_which_method_a_setting_is_of() -> None:
    def chained(label: str, e: float, o: float) -> Record:
        spec = {"name": "e", "params": {"eps": e}, "then": {"name": "o", "params": {"eps": o}}}
        return record(label, "x", 0.5, key=label, attack_spec=spec)

    made = [
        chained("e+o[eps=1.0]", 0.25, 1.0),
        chained("e+o[eps=2.0]", 0.5, 2.0),
        chained("e[eps=0.5]+o", 0.5, 3.0),
    ]
    labels = {"e+o[eps=1.0] (e.eps=0.25)", "e+o[eps=2.0] (e.eps=0.5)", "e[eps=0.5]+o (o.eps=3.0)"}
    assert set(to_table(made, mixed=True)["attack"]) == labels
    twice = [
        record(
            "e+e",
            "x",
            0.5,
            key=f"{a}{b}",
            attack_spec={
                "name": "e",
                "params": {"n": a},
                "then": {"name": "e", "params": {"n": b}},
            },
        )
        for a, b in ((1, 2), (2, 1))
    ]
    assert set(to_table(twice, mixed=True)["attack"]) == {
        "e+e (e.n=1, e.n=2)",
        "e+e (e.n=2, e.n=1)",
    }


def of_preset(attack: str, defense: str, acc: float, **params: Any) -> Record:
    label = (
        f"{attack}[{','.join(f'{key}={value}' for key, value in params.items())}]"
        if params
        else attack
    )
    return record(label, defense, acc, attack_spec={"name": attack, "params": params})


def presets() -> list[Record]:
    """Return records of em and rem in both presets, and of lsp, which has none.

    Em's default is not in its record, since that parameter came later.
    """
    accs = {"none": (0.9, 0.1, 0.2, 0.3, 0.4, 0.5), "x": (0.8, 0.2, 0.8, 0.4, 0.6, 0.7)}
    made = []
    for defense, (clean, lsp, em, em_official, rem, rem_official) in accs.items():
        made += [
            record("none", defense, clean),
            of_preset("lsp", defense, lsp),
            of_preset("em", defense, em),
        ]
        made += [
            of_preset("em", defense, em_official, preset="official"),
            of_preset("rem", defense, rem, preset="clean"),
        ]
        made += [of_preset("rem", defense, rem_official, preset="official")]
    return made


def test_presets_are_never_in_one_mean_or_rank() -> None:
    table = to_table(presets(), without_presets={"lsp"})
    assert table.groupby("preset")["attack"].unique().map(sorted).to_dict() == {
        "": ["em", "rem[preset=clean]"],
        "any": ["lsp", "none"],
        "official": ["em[preset=official]", "rem[preset=official]"],
    }
    board = leaderboard(table).set_index(["preset", "defense"])
    assert sorted(board.index) == [("", "none"), ("", "x"), ("official", "none"), ("official", "x")]
    assert board.loc[("", "x"), "mean"] == pytest.approx((0.2 + 0.8 + 0.6) / 3)  # lsp, em, rem
    assert board.loc[("official", "x"), "mean"] == pytest.approx((0.2 + 0.4 + 0.7) / 3)
    assert board["rank"].fillna(0).tolist() == [1, 0, 1, 0]
    # clean data stand beside each attack
    assert board["price_points"].tolist() == pytest.approx([10, 0, 10, 0])


def test_attacks_that_are_not_known_to_have_no_presets_count_as_default() -> None:
    board = leaderboard(to_table(presets())).set_index(["preset", "defense"])
    assert board["attacks"].to_dict() == {
        ("", "none"): 3,
        ("", "x"): 3,
        ("official", "none"): 2,
        ("official", "x"): 2,
    }


def test_a_suite_of_one_preset_and_attacks_without_is_one_group() -> None:
    made = [one for one in presets() if one.attack in ("none", "lsp", "em[preset=official]")]
    assert set(leaderboard(to_table(made, without_presets={"lsp"}))["preset"]) == {"official"}
    plain_ = [one for one in made if "official" not in one.attack]
    assert set(leaderboard(to_table(plain_, without_presets={"lsp"}))["preset"]) == {""}


def test_a_mode_of_released_code_is_a_preset_also_behind_a_plus() -> None:
    then = {"name": "em", "params": {}, "then": {"name": "ntga", "params": {"mode": "official"}}}
    made = [
        of_preset("ntga", "x", 0.5, mode="iterated"),
        of_preset("ntga", "x", 0.6, mode="official"),
    ]
    made.append(record("em+ntga", "x", 0.7, attack_spec=then))
    assert to_table(made).set_index("attack")["preset"].to_dict() == {
        "em+ntga": "official",
        "ntga[mode=iterated]": "",
        "ntga[mode=official]": "official",
    }
