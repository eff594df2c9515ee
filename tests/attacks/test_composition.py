"""Attacks one after the other: ``em+ops`` changes with the second what the first has made."""

from __future__ import annotations

import pytest
import torch

from benchmark.catalogue.spec import parse_spec
from support.command_line import Call
from support.tiny_bench import HEAD, SHADE, Bench

CORNER = (
    HEAD
    + '''
@attack(version=5, cite="nobody", norm="l0")
class Corner(Attack):
    """Overwrite one pixel."""
    def budget(self, info):
        return 1.0

    def poison(self, data, ctx):
        x = data.x.clone()
        x[:, :, 0, 0] = 255
        return data.with_x(x)
'''
)


@pytest.fixture
def two(bench: Bench) -> Bench:
    bench.method("shade", SHADE)
    bench.method("corner", CORNER)
    return bench


def test_text_and_parts() -> None:
    spec = parse_spec("em[granularity=class, eps=1e+0] + ops +lsp")
    assert [str(part) for part in spec.parts()] == ["em[granularity=class, eps=1e+0]", "ops", "lsp"]
    assert [part.then for part in spec.parts()] == [None, None, None]
    assert str(spec) == "em[granularity=class, eps=1e+0]+ops+lsp"
    with pytest.raises(ValueError, match='cannot read ""'):
        parse_spec("em+")


def test_the_second_reads_what_the_first_made(two: Bench) -> None:
    plan = two.plan(
        attacks=["shade", "shade+corner", "corner", "corner+shade"], defenses=["none", "grayscale"]
    )
    stages = {stage.key: stage for stage in plan.stages}
    cells = {(str(cell.attack), str(cell.defense)): cell for cell in plan.cells}
    labels = [stages[key].label for key in cells["shade+corner", "grayscale"].stages]
    assert labels == [
        "poison shade",
        "poison corner on shade",
        "purify shade+corner with grayscale",
        "train shade+corner + grayscale",
    ]
    assert cells["shade+corner", "none"].stages[0] == cells["shade", "none"].stages[0]  # made once
    assert (
        len(
            {
                cells[attack, "none"].stages[-2]
                for attack in ("shade", "corner", "shade+corner", "corner+shade")
            }
        )
        == 4
    )


def test_images_budgets_and_record(two: Bench) -> None:
    records = two.records(attacks=["none", "shade", "shade+corner"])
    keys = {
        str(cell.attack): cell.stages[-2]
        for cell in two.plan(attacks=["none", "shade", "shade+corner"]).cells
    }
    clean, first, both = (
        two.store.load_images(keys[name]).x for name in ("none", "shade", "shade+corner")
    )
    expected = first.clone()
    expected[:, :, 0, 0] = 255
    assert torch.equal(both, expected)
    record = records["shade+corner + none"]
    assert [
        record.attack_spec["name"],
        record.attack_spec["then"]["name"],
        record.attack_spec["then"]["version"],
    ] == ["shade", "corner", 5]
    assert sorted(name for name in record.sources if name in ("shade.py", "corner.py")) == [
        "corner.py",
        "shade.py",
    ]
    assert "norm" not in record.facts["poison"]
    assert records["shade + none"].facts["poison"]["norm"] == "linf"
    assert record.facts["poison"]["l0_max"] == int(
        (both != clean).any(1).sum((1, 2)).max()
    )  # of both together, from the clean images


def test_a_budget_is_that_of_its_own_attack(two: Bench) -> None:
    two.method(
        "two",
        CORNER.replace("class Corner", "class Two").replace("x[:, :, 0, 0]", "x[:, :, 0, :2]"),
    )
    outcome = two.run(attacks="shade+two")
    assert [failure.label for failure in outcome.failures] == ["poison two on shade"]
    assert "allowed L0 1 pixels" in outcome.failures[0].error


def test_defenses_do_not_follow_one_another(two: Bench) -> None:
    with pytest.raises(
        ValueError, match='"grayscale\\+jpeg" joins two defenses with \\+; only attacks'
    ):
        two.plan(defenses="grayscale+jpeg")


def test_every_part_is_checked(call: Call, tiny: str) -> None:
    result = call("plan", tiny, "--attacks", "lsp+opps[pixels=2],lsp[patch=4]+ops[pixles=1]")
    assert result.code == 2
    assert '--attacks: unknown attack "opps"; did you mean "ops"' in result.err
    assert '--attacks: attack "ops" has no parameter "pixles"' in result.err


def test_poison_command_takes_several(call: Call, tiny: str, images: object) -> None:
    result = call(
        "poison", "lsp[patch=4]+ops", "--dataset", f"folder[path={images},size=16]", "--out", "both"
    )
    assert result.code == 0, result.err
    assert "attack lsp[patch=4]+ops in" in result.out
