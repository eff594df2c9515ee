"""Specs as text, typed values and digests; methods found by their source, broken ones reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.catalogue import registry as registry_module
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import (
    Spec,
    Value,
    did_you_mean,
    format_spec,
    parse_spec,
    parse_value,
)
from benchmark.keys import axis_seed, canonical_json, digest

METHOD = '''
from benchmark import Defense, defense

@defense(version=3, cite="arXiv:0000.00000", needs=("clean:500",))
class Mine(Defense):
    """Do something.

    Parameters:
        rate: how much of it,
            in percent.
    """
    rate: float = 8 / 255
    steps: int = 2 * 5
    mode: str = "a"
    bound: float | None = None
    fast: bool = False

    def augment(self, x, y, ctx):
        return x, y
'''


def plugin(folder: Path, name: str, source: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("0.8 / 255", 0.8 / 255),
        ("-1/2", -0.5),
        ("3", 3),
        ("3.0", 3.0),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("none", None),
        ("class", "class"),
        ("a/b", "a/b"),
    ],
)
def test_values(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"granularity": "class"},
        {"eps": 8 / 255, "steps": 3, "lr": 1e-05, "fast": True, "bound": None},
        {"x": -0.1},
    ],
)
def test_a_spec_reads_what_it_writes(params: dict[str, object]) -> None:
    text = format_spec("em", params)  # type: ignore[arg-type]
    parsed = parse_spec(text)
    assert parsed.name == "em"
    assert dict(parsed.params) == params
    assert [type(value) for value in parsed.params.values()] == [
        type(value) for value in params.values()
    ]


def test_a_spec_keeps_the_text_people_wrote() -> None:
    spec = parse_spec(" em[ eps = 16/255 , granularity=class ] ")
    assert spec.params == {"eps": 16 / 255, "granularity": "class"}
    assert str(spec) == "em[ eps = 16/255 , granularity=class ]"
    assert str(Spec("em", {"eps": 0.5})) == "em[eps=0.5]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("em[eps=1", r'cannot read "em\[eps=1"; expected name'),
        ("", "expected name or name"),
        ("e m", "expected name or name"),
        ("em[eps]", 'cannot read "eps" in .*expected key=value'),
        ("em[eps=]", "expected key=value"),
        ("em[eps=1,eps=2]", 'sets "eps" twice'),
        ("em[eps=8/0]", "divides by zero"),
        ("em[eps=nan]", "is not a finite number"),
        ("em[eps=-inf]", "is not a finite number"),
    ],
)
def test_unreadable_specs(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


def test_canonical_json_and_digest_are_stable() -> None:
    value = {"b": [1, 1.0, True, None, "é"], "a": {"z": 8 / 255}}
    assert (
        canonical_json(value) == '{"a":{"z":0.03137254901960784},"b":[1,1.0,true,null,"\\u00e9"]}'
    )
    assert digest(value) == "45a3e5c916626f0f0fb9c1cc080ee5dfec6660f37b629dd2dfd928b2ef96c61d"
    assert digest({"a": {"z": 8 / 255}, "b": value["b"]}) == digest(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))


def test_axis_seeds_are_stable_and_differ() -> None:
    assert axis_seed("poison", "abc", 0, "init") == 4465015219594301182
    seeds = {
        axis_seed("train", seed, purpose) for seed in range(20) for purpose in ("init", "batches")
    }
    assert len(seeds) == 40
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_did_you_mean() -> None:
    assert (
        did_you_mean("grayscal", ["bdr", "grayscale"])
        == '; did you mean "grayscale"? available: bdr, grayscale'
    )
    assert did_you_mean("zzz", ["bdr"]) == "; available: bdr"
    assert did_you_mean("zzz", []) == "; available: (nothing)"


def test_unknown_names_and_parameters_name_the_nearest(registry: Registry) -> None:
    with pytest.raises(ValueError, match='unknown attack "lsq"; did you mean "lsp"'):
        registry.card("attack", "lsq")
    with pytest.raises(
        ValueError, match='attack "em" has no parameter "epsilon"; did you mean "eps"'
    ):
        registry.resolve("attack", parse_spec("em[epsilon=8/255]"))
    with pytest.raises(ValueError, match='attack "em": eps=big is not of type float'):
        registry.resolve("attack", parse_spec("em[eps=big]"))
    with pytest.raises(ValueError, match=r"model_steps=1\.5 is not of type int"):
        registry.resolve("attack", parse_spec("em[model_steps=1.5]"))
    with pytest.raises(ValueError, match="quality=true is not of type int"):
        registry.resolve("defense", parse_spec("jpeg[quality=true]"))


def test_equal_values_give_equal_keys(registry: Registry) -> None:
    texts = ("lsp[class_sep=10]", "lsp[class_sep=10.0]", "lsp[rms=6/255]", "lsp")
    digests = {digest(dict(registry.resolve("attack", parse_spec(text)).params)) for text in texts}
    assert len(digests) == 1
    assert (
        digest(dict(registry.resolve("attack", parse_spec("lsp[patch=4]")).params)) not in digests
    )


def test_a_bad_value_is_refused_with_the_methods_name(registry: Registry) -> None:
    with pytest.raises(ValueError, match=r'attack "em": eps=8, .*write 8/255, not 8'):
        registry.build("attack", registry.resolve("attack", parse_spec("em[eps=8]")))


def test_a_card_shows_the_source_as_it_is_written(tmp_path: Path) -> None:
    card = Registry(plugins=(plugin(tmp_path, "mine", METHOD),)).card("defense", "mine")
    assert (card.summary, card.version, card.cite, card.needs) == (
        "Do something.",
        3,
        "arXiv:0000.00000",
        ("clean:500",),
    )
    assert {
        name: (param.type, param.default, param.shown) for name, param in card.params.items()
    } == {
        "rate": ("float", 8 / 255, "8 / 255"),
        "steps": ("int", 10, "2 * 5"),
        "mode": ("str", "a", "a"),
        "bound": ("float | None", None, "none"),
        "fast": ("bool", False, "false"),
    }
    assert card.params["rate"].doc == "how much of it, in percent."
    assert card.trains
    assert not card.purifies


def test_a_plugin_is_loaded_from_its_file(tmp_path: Path) -> None:
    registry = Registry(plugins=(plugin(tmp_path, "mine", METHOD),))
    spec = registry.resolve("defense", parse_spec("mine[bound=1,mode=3]"))
    method = registry.build("defense", spec)
    assert (method.name, method.version, method.bound, method.mode, method.rate) == (
        "mine",
        3,
        1.0,
        "3",
        8 / 255,
    )
    assert "jpeg" in registry.cards("defense")


def test_a_file_that_is_not_python_is_reported_once_for_all_kinds(tmp_path: Path) -> None:
    registry = Registry(plugins=(plugin(tmp_path, "mine", METHOD + "\n  nonsense"),))
    for kind in ("attack", "defense", "dataset", "victim"):
        assert "mine" not in registry.cards(kind)
        with pytest.raises(
            ValueError, match=rf'{kind} "mine" cannot be read from .*mine\.py: line'
        ):
            registry.card(kind, "mine")
    (broken,) = registry.broken
    line = METHOD.count("\n") + 2
    assert (broken.kind, broken.name) == ("plugin", "mine")
    assert broken.reason.startswith(f"line {line}: unindent does not match")
    assert broken.reason.endswith(": nonsense")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            METHOD.replace("8 / 255", "min(1, 2)"),
            r"Mine\.rate = min\(1, 2\) is not a literal; write a number",
        ),
        (METHOD.replace("2 * 5", "(1, 2)"), r"default of Mine\.steps is a tuple"),
        (METHOD.replace("version=3, ", ""), "needs version=<int> and cite="),
        (METHOD.replace("8 / 255", "8 / 0"), "division by zero"),
        (METHOD.replace("8 / 255", "8 / 'a'"), "unsupported operand"),
    ],
)
def test_a_broken_plugin_is_reported_and_hurts_nobody_else(
    source: str, reason: str, tmp_path: Path
) -> None:
    registry = Registry(
        plugins=(plugin(tmp_path, "mine", source), plugin(tmp_path, "sound", METHOD))
    )
    assert {"sound", "jpeg", "none"} <= set(registry.cards("defense"))
    assert [(broken.kind, broken.name) for broken in registry.broken] == [("defense", "mine")]
    with pytest.raises(ValueError, match=f'defense "mine" cannot be read from .*({reason})'):
        registry.card("defense", "mine")


def test_a_required_parameter_is_asked_for(tmp_path: Path) -> None:
    registry = Registry(
        plugins=(plugin(tmp_path, "mine", METHOD.replace("steps: int = 2 * 5", "steps: int")),)
    )
    with pytest.raises(ValueError, match=r'defense "mine" needs steps; write mine\[steps=\.\.\.\]'):
        registry.resolve("defense", parse_spec("mine"))


def test_plugins_that_are_absent_or_take_a_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; give the path of one Python file"):
        Registry(plugins=(tmp_path / "absent.py",)).cards("defense")
    with pytest.raises(ValueError, match='two defenses are called "jpeg"'):
        Registry(plugins=(plugin(tmp_path, "jpeg", METHOD),)).cards("defense")


BY_CHOICE = METHOD.replace(
    'needs=("clean:500",)', 'by_choice={"mode=b": {"rate": 0.5}, "fast=true": {"steps": 3}}'
)


def test_a_choice_brings_defaults(tmp_path: Path) -> None:
    registry = Registry((plugin(tmp_path, "mine", BY_CHOICE),))

    def rate_and_steps(text: str, suite: dict[str, Value] | None = None) -> tuple[Value, Value]:
        params = registry.resolve("defense", parse_spec(text), suite).params
        return params["rate"], params["steps"]

    assert rate_and_steps("mine") == (8 / 255, 10)
    assert rate_and_steps("mine[mode=b]") == (0.5, 10)
    assert rate_and_steps("mine[mode=b,rate=0.1,fast=true]") == (0.1, 3)
    assert rate_and_steps("mine[mode=b]", {"rate": 0.2, "steps": 4}) == (0.5, 4)
    assert rate_and_steps("mine", {"mode": "b", "rate": 0.2}) == (0.2, 10)
    built = registry.load("defense", "mine")(mode="b", steps=1)
    assert (built.rate, built.steps) == (0.5, 1)


def test_a_choice_of_what_is_no_parameter_is_told(tmp_path: Path) -> None:
    for choice in ('{"mood=b": {"rate": 0.5}}', '{"mode=b": {"raet": 0.5}}'):
        source = METHOD.replace('needs=("clean:500",)', f"by_choice={choice}")
        registry = Registry((plugin(tmp_path, "mine", source),))
        with pytest.raises(ValueError, match=r"by_choice of class Mine names (mood|raet), which"):
            registry.card("defense", "mine")


def test_a_broken_entry_point_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "lost", "no_such_package.lost:Lost"

    monkeypatch.setattr(
        registry_module,
        "entry_points",
        lambda group: [Entry] if group == "uebench.defenses" else [],
    )
    registry = Registry()
    assert "jpeg" in registry.cards("defense")
    assert [broken.name for broken in registry.broken] == ["lost"]


def test_finding_methods_loads_no_torch_and_no_method() -> None:
    code = (
        "import sys\n"
        "from benchmark.catalogue.registry import Registry\n"
        "from benchmark.catalogue.spec import parse_spec\n"
        "r = Registry()\n"
        "[r.cards(kind) for kind in ('attack', 'defense', 'victim')]\n"
        "r.resolve('attack', parse_spec('em[eps=8/255]'))\n"
        "print(sorted({'torch', 'numpy', 'attacks', 'defenses'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=registry_module.ROOT,
    )
    assert result.stdout.strip() == "[]"


def test_names_that_python_would_read_as_numbers_stay_text() -> None:
    assert parse_spec("folder[path=2024_01]").params == {"path": "2024_01"}
    with pytest.raises(ValueError, match=r'"resnet18\[\]" sets no parameter; write resnet18'):
        parse_spec("resnet18[]")


def test_a_later_parameter_keeps_its_plain_default_where_a_choice_brings_another(
    registry: Registry,
) -> None:
    """A key without ``start`` is that of results from before ``start`` came: a normal one."""
    for text, start in {
        "at": "normal",
        "at[start=uniform]": "uniform",
        "at[norm=l2]": "uniform",
        "at[norm=l2,start=normal]": "normal",
    }.items():
        spec = registry.resolve("defense", parse_spec(text))
        assert registry.build("defense", spec).start == start
        assert spec.params.get("start", "normal") == start


@pytest.mark.parametrize("line", ["VERSION = 3", "VERSION: int = 3"])
def test_a_victims_version_is_read(line: str, tmp_path: Path) -> None:
    source = f'"""A network."""\n\n{line}\n\ndef build(info):\n    """Build it."""\n'
    (tmp_path / "net.py").write_text(source)
    assert Registry((tmp_path / "net.py",)).card("victim", "net").version == 3
