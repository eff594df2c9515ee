"""Suites: the shipped ones, overriding axes, and all mistakes together with paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import (
    SuiteError,
    load_suite,
    read_suite,
    suite_names,
    without_presets,
)

SMALL = """
datasets: embedded
attacks: [none, em]
defenses: [none, "jpeg[quality=30]"]
victims: resnet10_w16
protocols: quick
parameters:
  em: {surrogate: resnet10_w16, step: 1/255, max_rounds: 3}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    return write(tmp_path, SMALL)


def write(folder: Path, text: str, name: str = "small.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def texts(specs: Iterable[Spec]) -> tuple[str, ...]:
    return tuple(map(str, specs))


def problems(
    name: str,
    registry: Registry,
    axes: dict[str, Any] | None = None,
    settings: tuple[str, ...] = (),
) -> tuple[str, ...]:
    with pytest.raises(SuiteError) as caught:
        load_suite(name, registry, axes, settings)
    return caught.value.problems


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_can_be_planned(name: str, registry: Registry) -> None:
    suite = load_suite(name, registry)
    assert suite.name == name
    assert read_suite(name)[0]["about"].endswith(".")
    assert "none" in texts(suite.defenses)
    plan = make_plan(suite, registry, str, "fp32")
    assert not plan.skips
    assert len(plan.cells) == len(suite.attacks) * len(suite.defenses) * len(suite.seeds)


def test_quick_and_cifar10_lite_cross_the_main_methods(registry: Registry) -> None:
    shared = {"none", "grayscale", "jpeg", "vae", "dvae", "at"}
    quick, lite = load_suite("quick", registry), load_suite("cifar10-lite", registry)
    assert set(texts(quick.attacks)) == {"none", "em", "lsp"}
    assert {"none", "em", "em[granularity=class,class_share=1.0]", "lsp"} <= set(
        texts(lite.attacks)
    )
    assert set(texts(quick.defenses)) == shared
    assert shared | {"bdr"} <= set(texts(lite.defenses))
    assert (quick.victims, lite.victims) == (("resnet10_w24_s4",), ("resnet10_w16",))


def test_nightly_has_the_settings_of_quick(registry: Registry) -> None:
    """Each cell of quick that nightly has, with the same seed, has the same record."""
    cells = {
        name: {
            cell.key for cell in make_plan(load_suite(name, registry), registry, str, "fp32").cells
        }
        for name in ("quick", "nightly")
    }
    assert len(cells["quick"] & cells["nightly"]) == 12  # 3 attacks x 4 defenses, seed 0


def test_cifar10_fast_has_the_cells_of_cifar10_lite_and_two_attacks_more(
    registry: Registry,
) -> None:
    fast, lite = (load_suite(f"cifar10-{name}", registry) for name in ("fast", "lite"))
    assert not any(fast.datasets[0].params.values())  # all of its images
    assert (fast.victims, fast.protocols) == (("airbench_w32",), (get_protocol("fast"),))
    assert [s.name for s in fast.defenses] == [s.name for s in lite.defenses]
    attacks = [spec.name for spec in fast.attacks]
    assert sorted(attacks) == sorted([*(spec.name for spec in lite.attacks), "sep", "tap"])
    plan = make_plan(fast, registry, str, "fp32")
    assert len(plan.cells) == 7 * 7
    # 7 trainings and two surrogates; vae, dvae, jpeg, bdr and grayscale purify each poison
    kinds = Counter(stage.kind for stage in plan.stages)
    assert kinds == {"surrogate": 2, "poison": 7, "purify": 7 * 5, "train": 7 * 7}
    for spec in fast.attacks:
        assert spec.params.get("surrogate", "airbench_w32") == "airbench_w32"


def test_one_value_stands_for_a_list_of_one_and_defaults_fill_in(
    small: str, registry: Registry
) -> None:
    suite = load_suite(small, registry)
    assert (suite.name, texts(suite.datasets)) == ("small", ("embedded",))
    assert suite.protocols == (get_protocol("quick"),)
    assert (suite.seeds, suite.ratios, suite.craft_seed, suite.precision) == (
        (0,),
        (1.0,),
        0,
        "auto",
    )


def test_parameters_of_the_suite_replace_a_methods_defaults(small: str, registry: Registry) -> None:
    suite = load_suite(small, registry, {"attacks": ["em[max_rounds=5]", "lsp"]})
    spec, lsp = suite.attacks
    assert (spec.params["surrogate"], spec.params["max_rounds"], spec.params["eps"]) == (
        "resnet10_w16",
        5,
        8 / 255,
    )
    assert spec.params["step"] == 1 / 255  # a fraction written as text is a number
    assert str(spec) == "em[max_rounds=5]"
    assert lsp.params == registry.resolve("attack", Spec("lsp")).params


def test_fractions_are_numbers_everywhere(tmp_path: Path, registry: Registry) -> None:
    suite = load_suite(
        write(tmp_path, SMALL + "protocol_values: {lr: 1/10, schedule: cosine}\n"),
        registry,
        {"attacks": ["em[step=2/255]"]},
        ["em.eps=4/255"],
    )
    (protocol,), (em,) = suite.protocols, suite.attacks
    assert (protocol.lr, protocol.schedule) == (0.1, "cosine")
    assert (em.params["eps"], em.params["step"]) == (4 / 255, 2 / 255)


def test_axes_given_by_hand_replace_those_of_the_file(small: str, registry: Registry) -> None:
    suite = load_suite(
        small, registry, {"attacks": ["lsp"], "seeds": [0, 1], "victims": ["resnet18"]}
    )
    assert (texts(suite.attacks), suite.seeds) == (("lsp",), (0, 1))
    assert suite.victims == ("resnet18",)
    assert texts(suite.defenses) == ("none", "jpeg[quality=30]")
    assert texts(load_suite(small, registry).attacks) == ("none", "em")


def test_settings(small: str, registry: Registry) -> None:
    settings = [
        "em.max_rounds=20",
        "jpeg.quality=50",
        "protocol.epochs=3",
        "protocol.lr=0.05",
        "seeds=0-2",
        "precision=fp32",
        "craft_seed=4",
    ]
    suite = load_suite(
        small,
        registry,
        None,
        [
            *settings,
            "attacks=em[granularity=class,eps=4/255],lsp",
            "defenses=jpeg",
            "ratios=0.2,1",
        ],
    )
    em, (jpeg,), (protocol,) = suite.attacks[0], suite.defenses, suite.protocols
    assert (em.params["surrogate"], em.params["step"]) == ("resnet10_w16", 1 / 255)
    assert em.params["max_rounds"] == 20
    assert jpeg.params["quality"] == 50
    assert protocol == replace(get_protocol("quick"), epochs=3, lr=0.05)
    assert (suite.seeds, suite.precision, suite.craft_seed, suite.ratios) == (
        (0, 1, 2),
        "fp32",
        4,
        (0.2, 1.0),
    )
    assert texts(suite.attacks) == ("em[granularity=class,eps=4/255]", "lsp")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("em.max_rounds", "expected key=value, for example --set em.max_rounds=20"),
        ("=3", "expected key=value"),
        ("colour=red", r'a suite has no "colour"'),
        ("seed=1", 'a suite has no "seed"; did you mean "seeds"'),
        ("em.eps=8/0", "divides by zero"),
        ("em.esp=8/255", 'attack "em" has no parameter "esp"; did you mean "eps"'),
        ("em.eps=big", "eps=big is not of type float"),
        (
            "em.surrogate=resnet10_w61",
            'attack em: surrogate=resnet10_w61: unknown victim "resnet10_w61"; '
            'did you mean "resnet10_w16"',
        ),
        ("emm.eps=8/255", 'parameters.emm: nothing is called "emm"; did you mean "em"'),
        ("protocol.epoch=3", 'a protocol has no setting "epoch"; did you mean "epochs"'),
        ("protocol.epochs=many", "epochs='many' is not of type int"),
        ("protocol.epochs=0", "epochs=0, expected at least 1"),
        ("seeds=2,2", r"seeds \[2, 2\] must be different and not negative"),
        ("seeds=one", 'cannot read the seeds "one"; write 0,1,2 or 0-4'),
        ("ratios=1.5", r"poison ratios \[1\.5\] must be from 0 to 1"),
        ("precision=fp16", 'precision "fp16" is unknown; expected auto, fp32 or bf16'),
        ("name=../elsewhere", r'"\.\./elsewhere" cannot be the name of a folder of results'),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(
    setting: str, message: str, small: str, registry: Registry
) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(small, registry, None, [setting])
    assert len(caught.value.problems) == 1


def test_five_mistakes_are_reported_at_once_with_their_paths(
    tmp_path: Path, registry: Registry
) -> None:
    file = write(
        tmp_path,
        """
datasets: embedded
attacks: [none, emm]
defenses: [none, "jpeg[qualty=10]"]
protocols: quik
seeds: [0, -1]
colour: red
""",
        "five.yaml",
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(file, registry)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{file}: 5 problems"
    found = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert set(found) == {"attacks[1]", "defenses[1]", "protocols[0]", "seeds", "colour"}
    assert found["attacks[1]"].startswith('unknown attack "emm"; did you mean "em"?')
    assert found["defenses[1]"].startswith(
        'defense "jpeg" has no parameter "qualty"; did you mean "quality"?'
    )
    assert found["protocols[0]"].startswith('unknown protocol "quik"; did you mean "quick"?')
    assert found["seeds"] == "seeds [0, -1] must be different and not negative"
    assert found["colour"].startswith('a suite has no "colour"')


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("attacks: []", "attacks", "name at least one"),
        ("attacks:", "attacks[0]", "valid string"),
        ("attacks: [none, 5]", "attacks[1]", "valid string"),
        ("attacks: [none, {em: 1}]", "attacks[1]", "valid string"),
        ('attacks: ["em[eps"]', "attacks[0]", r"expected name or name\[key=value"),
        ("datasets: embeded", "datasets[0]", 'unknown dataset "embeded"; did you mean "embedded"'),
        ("datasets: folder", "datasets[0]", r"folder\[path=...\]"),
        ("victims: resnet81", "victims[0]", 'unknown victim "resnet81"; did you mean "resnet18"'),
        ("seeds: [0.5]", "seeds[0]", "valid integer"),
        ("seeds: [yes]", "seeds[0]", "valid integer"),
        (
            "craft_seed: many",
            "craft_seed",
            "'many' is no craft seed; expected a whole number, or \"seed\"",
        ),
        ("craft_seed: yes", "craft_seed", "True is no craft seed"),
        ("parameters: 5", "parameters", "dictionary"),
        ("parameters: {em: 5}", "parameters.em", "dictionary"),
        ("parameters: {nothing: {a: 1}}", "parameters.nothing", 'nothing is called "nothing"'),
        ("protocol_values: fast", "protocol_values", "dictionary"),
        ("name: store", "name", '"store" cannot be the name'),
        ("name: a/b", "name", "expected a plain name"),
        ("3: 4", "[3]", "string"),
    ],
)
def test_a_mistake_is_one_problem_with_its_path(
    text: str, path: str, message: str, tmp_path: Path, registry: Registry
) -> None:
    key = text.partition(":")[0]
    kept = [
        line for line in SMALL.splitlines() if not line.startswith((f"{key}:", "parameters", "  "))
    ]
    file = write(tmp_path, "\n".join([*kept, text]))
    with pytest.raises(SuiteError, match=message) as caught:
        load_suite(file, registry)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [path]


def test_a_value_that_is_a_list_is_named_once(tmp_path: Path, registry: Registry) -> None:
    found = problems(write(tmp_path, SMALL + "  lsp: {patch: [1, 2]}\n"), registry)
    assert found == (
        "parameters.lsp.patch: [1, 2] is a list; expected a number, a text, true, false or none",
    )
    found = problems(write(tmp_path, SMALL + "protocol_values: {lr: {}}\n"), registry)
    assert (
        found[0]
        == "protocol_values.lr: {} is a dict; expected a number, a text, true, false or none"
    )


def test_a_wrong_table_is_reported_even_if_a_setting_goes_into_it(
    tmp_path: Path, registry: Registry
) -> None:
    file = write(
        tmp_path, SMALL.partition("parameters")[0] + "parameters: {em: 5}\nprotocol_values: fast\n"
    )
    found = problems(file, registry, None, ("em.eps=4/255", "protocol.epochs=2"))
    assert [problem.partition(":")[0] for problem in found] == ["parameters.em", "protocol_values"]


def test_parameters_of_methods_that_do_not_run_are_checked_too(
    small: str, registry: Registry
) -> None:
    found = problems(small, registry, None, ("dvae.epoks=2", "at.foo=1"))
    assert [problem.partition("; ")[0] for problem in found] == [
        'parameters.dvae: defense "dvae" has no parameter "epoks"',
        'parameters.at: defense "at" has no parameter "foo"',
    ]


def test_missing_axes_are_named(tmp_path: Path, registry: Registry) -> None:
    found = problems(write(tmp_path, "about: nothing else\n"), registry)
    # datasets have a default
    assert sorted(found) == [
        f"{axis}: missing; name at least one" for axis in ("attacks", "defenses")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attacks: [none", "small.yaml is not YAML: "),
        ("- none\n- em\n", r"holds a list, expected the axes of a suite \(attacks, defenses"),
        ("", "holds a NoneType, expected the axes"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "is not YAML: could not determine a constructor",
        ),
    ],
)
def test_files_that_are_no_suite(
    text: str, message: str, tmp_path: Path, registry: Registry
) -> None:
    with pytest.raises(ValueError, match=message):
        load_suite(write(tmp_path, text), registry)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.yaml").write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    with pytest.raises(ValueError, match=r"photo\.yaml is not YAML: "):
        read_suite(str(tmp_path / "photo.yaml"))


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(
        ValueError,
        match=r'unknown suite "qick"; did you mean "quick"\? available: .*; '
        "or give the path of a YAML file",
    ):
        read_suite("qick")
    with pytest.raises(ValueError, match="unknown suite"):
        read_suite("nowhere/absent.yaml")


@pytest.mark.parametrize(
    "name", ["../suites/quick", "sub/quick", "/etc/passwd", "..", "", "quick/", "quick\0"]
)
def test_a_suites_name_is_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="unknown suite"):
        read_suite(name)


def test_which_attacks_have_no_presets(registry: Registry) -> None:
    free = without_presets(registry)
    assert {"lsp", "ops", "ar", "none"} <= free
    assert not {"em", "rem", "sem", "sep", "ntga"} & free


def test_presets_are_not_mixed_in_one_table(registry: Registry) -> None:
    (problem,) = problems("quick", registry, {"attacks": ["lsp", "em", "rem[preset=official]+ops"]})
    assert problem.startswith(
        "attacks: em (clean), rem[preset=official]+ops (official): a table would average"
    )
    (problem,) = problems("quick", registry, {"attacks": ["lsp", "em", "ntga[mode=official]"]})
    assert problem.startswith("attacks: em (clean), ntga[mode=official] (official)")
    official = ["lsp", "em[preset=official]", "rem[preset=official]"]
    assert texts(load_suite("quick", registry, {"attacks": official}).attacks) == tuple(official)
