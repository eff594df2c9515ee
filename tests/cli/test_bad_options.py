"""Bad options and suites: the message names what the user wrote, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.analysis.baseline import write_baseline
from benchmark.planning.yaml_text import load_yaml
from support.command_line import Call
from support.made_up_nights import record


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            "plan quick --seeds 3-1",
            '--seeds: the seeds "3-1" hold no seed: 3-1 runs backwards; write 1-3',
        ),
        ("plan quick --seeds 0,0", "--seeds: seeds [0, 0] must be different"),
        ("plan quick --set seeds=3-1", '--set seeds=3-1: the seeds "3-1" hold no seed'),
        ("plan quick --set ratios=2", "--set ratios=2: poison ratios [2.0] must be from 0 to 1"),
        ("plan quick --set protocol.epochs=0", "--set protocol.epochs=0: protocol quick: epochs=0"),
        ("plan quick --set em.eps=8", 'given: 1 problem\n  --set em.eps=8: attack "em": eps=8'),
        ("plan quick --set em.eps=300/255", '--set em.eps=300/255: attack "em": eps=1.17'),
        ("plan quick --set em.epz=1", '--set em.epz=1: attack "em" has no parameter "epz"'),
        ("plan quick --set dvae.kd=x", '--set dvae.kd=x: defense "dvae": kd=x is not of type'),
        ("plan quick --set bogus.x=1", '--set bogus.x=1: nothing is called "bogus"'),
        ("plan quick --attacks em,emm", '--attacks: unknown attack "emm"; did you mean "em"?'),
        ("plan quick --victim resnet19", '--victim: unknown victim "resnet19"; did you mean'),
        ("plan quick --protocol st60", '--protocol: unknown protocol "st60"; did you mean'),
        ("plan quick --defenses ,", "--defenses: missing; name at least one"),
        (
            "plan quick --dataset ../photos",
            "--dataset ../photos is a path, expected the name of a data set; "
            'for a folder of images write "folder[path=../photos]"',
        ),
        (
            "plan quick --set datasets=embedded,../photos",
            "--set datasets=../photos is a path, expected the name of a data set; "
            'for a folder of images write "folder[path=../photos]"',
        ),
        ("plan quick --dataset here", 'write "folder[path=here]"'),
        ("poison em --dataset ../photos --out x", 'write "folder[path=../photos]"'),
        (
            "compare jpeg --against dvaee",
            'DEFENSE and --against: unknown defense "dvaee"; did you mean "dvae"?',
        ),
    ],
)
def test_an_option_at_fault_is_named_and_the_suite_is_not(
    args: str, message: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    result = call(*args.split())
    assert result.code == 2
    assert message in result.err
    assert "quick.yaml" not in result.err
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            "--defenses none,at[norm=l2] --set at.eps=64/255",
            "at.eps=64/255: changes nothing, since at[norm=l2] has defaults of its own; "
            "write at[norm=l2,eps=64/255]",
        ),
        ("--defenses at[norm=l2] --set at.steps=3", "at.steps=3: changes nothing, since at[norm="),
        (
            "--attacks none+em[eps=4/255] --set em.eps=2/255",
            "em.eps=2/255: changes nothing, since em[eps=4/255] sets eps itself; change it there",
        ),
        ("--attacks none --set lsp.patch=4", "lsp.patch=4: no lsp in this suite; add it, or"),
    ],
)
def test_a_setting_that_reaches_no_method_is_refused(args: str, message: str, call: Call) -> None:
    result = call("plan", "quick", *args.split())
    assert result.code == 2
    assert f"the options given: 1 problem\n  --set {message}" in result.err


@pytest.mark.parametrize(
    "args",
    [
        "--defenses at,at[norm=l2] --set at.eps=4/255",
        "--defenses at[norm=l2] --set at.norm=l2 --set at.eps=0.25",
        "--attacks none+lsp,lsp[patch=4] --set lsp.patch=2",
        "--attacks lsp --set lsp.patch=2 --set lsp.patch=4",
        "--attacks em --set em.noise_steps=10",
        "--attacks lsp --defenses none",  # the suite's own values of em and at reach nothing
    ],
)
def test_a_setting_that_reaches_some_method_is_taken(args: str, call: Call) -> None:
    assert call("plan", "quick", "--dataset", "embedded", *args.split()).code == 0


def test_problems_of_the_suite_and_of_options_stand_together(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("attacks: [emm]\ndefenses: [none]\nvictims: resnet18\n")
    both = call("plan", "mine.yaml", "--defenses", "jpg").err
    assert "error: mine.yaml with the options given: 2 problems" in both
    assert '  attacks[0]: unknown attack "emm"' in both
    assert '  --defenses: unknown defense "jpg"' in both
    assert call("plan", "mine.yaml").err.startswith("error: mine.yaml: 1 problem")


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("attacks: em\ndefenses: none\nattacks: lsp\n", "attacks", "lines 1 and 3"),
        (
            "attacks: em\ndefenses: none\nparameters:\n  em: {eps: 1, eps: 2}\n",
            "eps",
            "lines 4 and 4",
        ),
    ],
)
def test_a_key_that_stands_twice_in_a_suite_is_refused(
    text: str, key: str, lines: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "twice.yaml").write_text(text)
    result = call("plan", "twice.yaml")
    assert result.code == 2
    assert f'twice.yaml: "{key}" stands twice, in {lines}; keep one of the two' in result.err


def test_anchors_and_merges_of_yaml_stay_allowed() -> None:
    text = b"base: &base {a: 1, b: 2}\none: {<<: *base, a: 3}\ntwo: {<<: *base}\n"
    assert load_yaml(text) == {
        "base": {"a": 1, "b": 2},
        "one": {"a": 3, "b": 2},
        "two": {"a": 1, "b": 2},
    }


@pytest.mark.parametrize(
    "args",
    [
        "report quick",
        "report --all",
        "table",
        "table quick",
        "merge nowhere",
        "baseline accept quick",
        "regress quick --baselines accepted",
    ],
)
def test_a_folder_of_results_that_is_not_there_is_named(
    args: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "accepted").mkdir()
    write_baseline(tmp_path / "accepted" / "quick.jsonl", [record("a", 0.5)])
    words = args.split()
    result = call(*words, *([] if words[0] == "merge" else ["--results", "nowhere"]))
    assert result.code in (1, 2)
    assert "nowhere" in result.err
    assert "no such folder" in result.err
    assert not (tmp_path / "nowhere").exists()
