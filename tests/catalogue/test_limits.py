"""Choices and ranges: read from source and from classes alike, and checked everywhere."""

from __future__ import annotations

import ast
import inspect
import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

from attacks.em import EM
from benchmark import api
from benchmark.catalogue.card import DECLARED, NEEDED
from benchmark.catalogue.limits import Limits, limited_fields, limits_of, read_annotation
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import parse_spec

NAMES = {
    "Literal": "typing.Literal",
    "t": "typing",
    "Annotated": "typing.Annotated",
    "Interval": "annotated_types.Interval",
    "at": "annotated_types",
    **{name: f"annotated_types.{name}" for name in ("Ge", "Gt", "Le", "Lt")},
}
SHARE = Limits(bounds=(("gt", 0), ("le", 1)))


def read(text: str) -> tuple[tuple[str, ...], Limits]:
    return read_annotation(ast.parse(text, mode="eval").body, NAMES, "EM.x")


@pytest.mark.parametrize(
    ("text", "hint", "types", "limits"),
    [
        ("int", int, ("int",), Limits()),
        ("'float | None'", float | None, ("float", "None"), Limits(optional=True)),
        ("Literal['a', 'b']", Literal["a", "b"], ("str",), Limits(("a", "b"))),
        ("t.Literal[1, 2]", Literal[1, 2], ("int",), Limits((1, 2))),
        (
            "Literal['a'] | None",
            Literal["a"] | None,
            ("str", "None"),
            Limits(("a",), optional=True),
        ),
        (
            "Annotated[float, Interval(gt=0, le=1)]",
            Annotated[float, Interval(gt=0, le=1)],
            ("float",),
            SHARE,
        ),
        ("Annotated[float, Gt(0), Le(1)]", Annotated[float, Gt(0), Le(1)], ("float",), SHARE),
        ("t.Annotated[int, at.Ge(1)]", Annotated[int, Ge(1)], ("int",), Limits((), (("ge", 1),))),
        ("Annotated[int, Lt(lt=9)]", Annotated[int, Lt(9)], ("int",), Limits(bounds=(("lt", 9),))),
    ],
)  # fmt: skip
def test_source_and_class_are_read_alike(
    text: str, hint: object, types: tuple[str, ...], limits: Limits
) -> None:
    assert read(text) == (types, limits)
    assert limits_of(hint) == limits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dict", r"EM\.x is annotated with dict; a parameter is int, float, str or bool"),
        ("Optional[int]", r"EM\.x is annotated with Optional\[int\]"),
        ("Annotated[float, MultipleOf(2)]", r"Annotated holds MultipleOf\(2\), which the registry"),
        ("Annotated[float, min(1)]", r"Annotated holds min\(1\)"),
        ("Annotated[float, Interval()]", r"Interval\(\) has no bounds of the form gt=0, le=1"),
        ("Annotated[float, Interval(0, 1)]", "has no bounds of the form"),
        ("Annotated[float, Ge(1, 2)]", "has no bounds of the form"),
        ("Annotated[float, Ge(le=1)]", "has no bounds of the form"),
        ("Annotated[float, Ge('a')]", "has a bound that is no number"),
        ("Annotated[float, Ge(least)]", r"EM\.x = least is not a literal"),
        ("Literal['auto'] | float", "choices and ranges go with None alone"),
        ("int | Annotated[float, Ge(1)]", "choices and ranges go with None alone"),
        ("Annotated[str, Ge(1)]", "a range needs int or float, not str"),
        ("Literal[least]", r"EM\.x = least is not a literal"),
    ],
)
def test_annotations_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("limits", "allowed", "refused"),
    [
        (SHARE, [1, 0.5, 1e-9], [0, 1.1, math.nan, math.inf, True, "1", None]),
        (Limits(bounds=(("ge", 0),)), [0, 7], [-1, math.inf]),
        (Limits(bounds=(("lt", 1),)), [0.9, -5], [1]),
        (Limits(("a", "b")), ["a", "b"], ["c", None, 1]),
        (Limits((1, 2)), [1, 2], [True, 3, "1"]),
        (Limits(("a",), optional=True), ["a", None], ["b"]),
        (Limits(), [None, "x", math.inf], []),
    ],
)
def test_what_is_allowed(limits: Limits, allowed: list[object], refused: list[object]) -> None:
    assert all(limits.allow(value) for value in allowed)  # type: ignore[arg-type]
    assert not any(limits.allow(value) for value in refused)  # type: ignore[arg-type]


def test_limits_for_people() -> None:
    assert Limits(("sample", "class")).shown("granularity") == "sample or class"
    assert Limits(("a", "b", "c")).shown("x") == "a, b or c"
    assert SHARE.shown("eps") == "0 < eps <= 1"
    assert Limits(bounds=(("ge", 0.5 / 255), ("lt", 1))).shown("eps") == "0.5/255 <= eps < 1"
    words = ["more than 1", "at least 1", "less than 1", "at most 1"]
    assert [Limits(bounds=((b, 1),)).shown("x") for b in ("gt", "ge", "lt", "le")] == words


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("em[granularity=smaple]", '"smaple", expected sample or class; did you mean "sample"?'),
        ("em[granularity=3]", 'granularity="3", expected sample or class'),
        ("em[eps=300/255]", "eps=300/255, expected 0.5/255 <= eps < 1 (L-inf budget in [0, 1] un"),
        ("em[eps=8]", "units); write 8/255, not 8"),
        ("em[step=0]", "step=0, expected 0 < step < 1 (length of one sign step in [0, 1] units)"),
        ("em[max_rounds=0]", "max_rounds=0, expected at least 1 (stop after this many rounds"),
        ("ar[eps=8]", "eps=8, expected 0.5 <= eps <= 4 (L2 budget of an image of 3x32x32, in [0"),
    ],
)
def test_a_bad_value_is_told_when_a_spec_is_resolved(
    spec: str, message: str, registry: Registry
) -> None:
    parsed = parse_spec(spec)
    with pytest.raises(ValueError, match=f'^attack "{parsed.name}": ') as told:
        registry.resolve("attack", parsed)
    assert message in str(told.value)
    assert "not 8" not in str(told.value) or parsed.name == "em"  # 8/255 is no L2 length


def test_a_class_checks_itself_with_the_same_words(registry: Registry) -> None:
    with pytest.raises(ValueError, match='granularity="x", expected sample or class') as told:
        EM(granularity="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="granularity") as planned:
        registry.resolve("attack", parse_spec("em[granularity=x]"))
    assert str(planned.value) == f'attack "em": {told.value}'
    with pytest.raises(ValueError, match=r"eps=8, expected 0\.5/255 <= eps < 1 .*write 8/255"):
        EM(eps=8)


def test_every_value_of_every_method_has_the_same_limits_in_source_and_class(
    registry: Registry,
) -> None:
    for kind in ("attack", "defense", "dataset"):
        for name, card in registry.cards(kind).items():
            seen = limited_fields(registry.load(kind, name))
            told = {key: param.limits for key, param in card.params.items()}
            assert {key: limits for key, limits in told.items() if limits != Limits()} == seen, name


@pytest.mark.parametrize("kind", ["attack", "defense", "dataset"])
def test_the_registry_knows_what_a_decorator_takes(kind: str) -> None:
    taken = list(inspect.signature(getattr(api, kind)).parameters)
    assert taken == [*NEEDED, *DECLARED[kind]]


HEAD = "from typing import ClassVar\nfrom benchmark import Attack, Defense, attack, defense\n"


@pytest.mark.parametrize(
    ("declared", "body", "message"),
    [
        ("", "norm = 'l2'", r"class Mine sets norm; declare it in the decorator: @attack"),
        ("", "effort: ClassVar[dict[str, float]] = {'x': 1.0}", "sets effort; declare it"),
        ("", "later = ('x',)", "sets later; declare it in the decorator"),
        ("", "version = 3", "sets version; declare it in the decorator"),
        (", nrom='l2'", "", '@attack has no keyword "nrom"; did you mean "norm"'),
        (", needs=('clean:5',)", "", '@attack has no keyword "needs"'),
        (", norm='l1'", "", 'norm is "l1", expected linf, l2, l0 or none; did you mean "l'),
        (", later='x'", "", r"later='x'; write, for example, later=\('anneal',\)"),
        (", toy={'y': 1}", "", "toy of class Mine names y, which is no parameter"),
        (", toy=TOY", "", "@attack: toy = TOY is not a literal"),
        ("", "mode: Literal['a'] = 'b'\n", "mode is annotated with Literal"),
    ],
)  # fmt: skip
def test_declarations_that_are_wrong(
    declared: str, body: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f'{HEAD}\n@attack(version=1, cite="x"{declared})\nclass Mine(Attack):\n'
        f'    """Mine."""\n    x: int = 1\n    {body}\n'
    )
    with pytest.raises(ValueError, match=message):
        Registry((file,)).card("attack", "mine")


def test_a_default_must_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f'{HEAD}from typing import Literal\n@attack(version=1, cite="x")\nclass Mine(Attack):\n'
        '    """Mine."""\n    mode: Literal["a", "b"] = "c"\n'
    )
    with pytest.raises(ValueError, match=r'default of Mine\.mode: mode="c", expected a or b'):
        Registry((file,)).card("attack", "mine")
