"""The pages of docs/ are true: their code runs, their commands exist, their facts hold."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from benchmark.catalogue.protocol import PROTOCOLS, Protocol
from benchmark.catalogue.registry import ROOT, Registry
from benchmark.catalogue.spec import SUBSET_PARAMS, format_value, parse_seeds, split_list
from benchmark.cli.main import app
from benchmark.contract import check_method
from benchmark.contract import toy_set as make_toy_set
from benchmark.planning.suite import load_suite
from benchmark.training.train import build_victim

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
METHOD_PAGES = sorted((DOCS / "methods").glob("*.md"))
KINDS = {"attack": "attack", "defense": "defense", "data set": "dataset", "victim": "victim"}
SHELLS = ("bash", "sh", "console")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, language and lines."""

    page: str
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [
        Block(page.relative_to(ROOT).as_posix(), language, text)
        for language, text in found
        if language in languages
    ]


def plugins() -> dict[str, tuple[str, str]]:
    """Return file name -> (kind, source) of each method shown on the two pages for authors.

    The first line of a code block names its file.
    """
    found: dict[str, tuple[str, str]] = {}
    for kind in ("attack", "defense"):
        for block in blocks(DOCS / f"add-a{'n' if kind == 'attack' else ''}-{kind}.md", "python"):
            name = re.fullmatch(r"# (\w+\.py)", block.text.partition("\n")[0])
            assert name is not None, (
                f"a block of {block.page} does not name its file in its first line"
            )
            found[name[1]] = kind, block.text
    return found


@pytest.fixture(scope="module")
def plugin_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plugins")
    files = {}
    for name, (_, source) in plugins().items():
        files[name] = folder / name
        files[name].write_text(source, encoding="utf-8")
    return files


# The methods that the pages show


@pytest.mark.parametrize("name", plugins())
def test_a_method_of_the_pages_passes_its_checks(name: str, plugin_files: dict[str, Path]) -> None:
    kind, _ = plugins()[name]
    results = check_method(kind, Path(name).stem, Registry(plugins=(plugin_files[name],)))
    assert not [f"{result.name}: {result.detail}" for result in results if not result.passed]
    assert results[-1].name == "seed"


@pytest.mark.parametrize("name", ["mydefense.py", "myattack.py"])
def test_the_first_method_of_a_page_is_short(name: str) -> None:
    code = [line for line in plugins()[name][1].split('"""')[-1].splitlines() if line.strip()]
    assert len(code) <= 20


def test_every_parameter_of_a_shown_method_is_explained(plugin_files: dict[str, Path]) -> None:
    registry = Registry(plugins=tuple(plugin_files.values()))
    for name, (kind, _) in plugins().items():
        card = registry.card(kind, Path(name).stem)
        assert card.summary
        assert [param.name for param in card.params.values() if not param.doc] == []


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_an_installed_package_is_found_by_its_entry_point(kind: str, tmp_path: Path) -> None:
    """A fresh process finds a method of an installed distribution.

    The page's pyproject and its first method make up the distribution.
    """
    page = DOCS / f"add-a{'n' if kind == 'attack' else ''}-{kind}.md"
    (block,) = blocks(page, "toml")
    project = tomllib.loads(block.text)["project"]
    ((group, entries),) = project["entry-points"].items()
    ((name, module),) = entries.items()
    assert group == f"uebench.{kind}s"
    package, _, file = module.partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / f"{file}.py").write_text(plugins()[f"{name}.py"][1], encoding="utf-8")
    info = tmp_path / f"{package}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
        encoding="utf-8",
    )
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n", encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.argv[1:] = ['list', '{kind}s', '{name}']\n"
        "from benchmark.cli.main import app\n"
        "app(standalone_mode=False); print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{name}  ")
    assert lines[-1] == "False"
    assert "left out" not in result.stderr


# The commands that the pages show


def commands() -> list[tuple[str, str]]:
    """Return (page, command) of each shell line that runs something of this project.

    A trailing backslash continues a line.
    """
    found = []
    for page in PAGES:
        for block in blocks(page, *SHELLS):
            for line in re.split(r"\n|&&|;", block.text.replace("\\\n", " ")):
                command = line.strip().removeprefix("$ ").removeprefix("time ")
                words = shlex.split(command, comments=True)
                if project_part(words) is not None:
                    found.append((block.page, command))
        for code in re.findall(
            r"`((?:python|uebench|run_benchmark\.py) [^`\n]+)`", page.read_text(encoding="utf-8")
        ):
            words = shlex.split(code)
            # NAME and FILE stand for something
            if project_part(words) is not None and not any(word.isupper() for word in words):
                found.append((page.relative_to(ROOT).as_posix(), code))
    return sorted(set(found))


def project_part(words: list[str]) -> list[str] | None:
    """Return ``[program, argument, ...]`` from the word on that names a program of this project.

    Return None if there is no such word.
    """
    for position, word in enumerate(words):
        if (
            word.endswith("run_benchmark.py")
            or word == "uebench"
            or re.fullmatch(r"(\./)?(?:perf|docs)/\w+\.py", word)
        ):
            return words[position:]
        if word == "pytest" or word.endswith("/pytest"):
            return words[position:]
    return None


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_the_pages_is_valid(
    page: str, command: str, plugin_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = project_part(shlex.split(command, comments=True))
    assert words is not None
    program, arguments = words[0], words[1:]
    if program.endswith("pytest"):
        assert [
            word
            for word in arguments
            if word.startswith("tests") and not (ROOT / word.partition("::")[0]).exists()
        ] == []
    elif not program.endswith("run_benchmark.py") and program.endswith(".py"):
        monkeypatch.syspath_prepend(str(ROOT / "perf"))
        script_parser(ROOT / program).parse_args(arguments)
    else:
        check_invocation(arguments, plugin_files)


def check_invocation(arguments: list[str], plugin_files: dict[str, Path]) -> None:
    """Parse a command line as ``run_benchmark.py`` would, look up every name in it, run nothing."""
    group: Any = typer.main.get_command(app)
    if not arguments or arguments[0].startswith("-"):
        assert arguments in ([], ["--help"], ["-h"], ["--version"])
        return
    assert arguments[0] in group.commands, f"there is no command {arguments[0]}"
    given = group.commands[arguments[0]].make_context(arguments[0], arguments[1:]).params
    files = given.get("plugin") or ()
    registry = Registry(plugins=tuple(plugin_files.get(file.name, file) for file in files))
    if arguments[0] in ("table", "agree"):  # of a whole suite, or of everything
        load_suite(given["suite"] or "quick", registry)
    elif "suite" in given:
        if "defenses" in given:
            defenses = given["defenses"]
        else:  # those of `compare`
            defenses = f"{given['defense']},{given['against']}"
        texts = {"attacks": given["attacks"], "defenses": defenses, "datasets": given["dataset"]}
        texts |= {"victims": given["victim"], "protocols": given["protocol"]}
        axes = {name: split_list(text) for name, text in texts.items() if text is not None}
        if given["seeds"] is not None:
            axes["seeds"] = parse_seeds(given["seeds"])
        load_suite(given["suite"], registry, axes, given["settings"] or ())
    elif arguments[0] == "list" and given["name"] is not None:
        registry.card(given["what"].value.removesuffix("s"), given["name"])
    elif arguments[0] == "check":
        assert given["name"] in {**registry.cards("attack"), **registry.cards("defense")}


def test_the_check_of_commands_finds_mistakes(plugin_files: dict[str, Path]) -> None:
    # typer's version decides whether the error's class is click's or typer's
    with pytest.raises(Exception, match=r"No such option.*--defences"):
        check_invocation(["run", "quick", "--defences", "none"], plugin_files)
    with pytest.raises(ValueError, match="unknown defense"):
        check_invocation(["run", "quick", "--defenses", "mydefense"], plugin_files)
    with pytest.raises(AssertionError, match="no command"):
        check_invocation(["ruin", "quick"], plugin_files)


@pytest.mark.parametrize("page", ["add-a-defense.md", "add-an-attack.md", "performance.md"])
def test_a_page_shows_commands(page: str) -> None:
    assert len([command for where, command in commands() if where == f"docs/{page}"]) >= 3


def script_parser(file: Path) -> argparse.ArgumentParser:
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    parser = module.parser()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def test_every_measuring_script_stands_on_the_page() -> None:
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    scripts = [
        file
        for file in (ROOT / "perf").glob("[!_]*.py")
        if "def main()" in file.read_text(encoding="utf-8")
    ]
    assert len(scripts) >= 6
    assert [file.name for file in scripts if f"perf/{file.name}" not in text] == []


# The facts that the pages state


def sections() -> dict[tuple[str, str], str]:
    """Return (kind, name) -> text of the section of docs/methods that describes it."""
    found: dict[tuple[str, str], str] = {}
    for page in METHOD_PAGES:
        parts = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.M)[1:]
        for part in parts:
            title = re.match(r"(attack|defense|data set|victim) `(\w+)`\n", part)
            if title is not None:
                where = KINDS[title[1]], title[2]
                assert where not in found, f"two sections describe {title[1]} {title[2]}"
                found[where] = part
    return found


def table_rows(text: str) -> Iterator[list[str]]:
    """Return the cells of the rows whose first cell is `code`."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            yield [cells[0].strip("`"), *cells[1:]]


def test_every_method_has_a_section_and_no_section_is_left_over() -> None:
    registry = Registry()
    assert set(sections()) == {
        (kind, name) for kind in KINDS.values() for name in registry.cards(kind)
    }


@pytest.mark.parametrize(("kind", "name"), [key for key in sections() if key[0] != "victim"])
def test_a_section_states_the_facts_of_the_code(kind: str, name: str) -> None:
    card, text = Registry().card(kind, name), sections()[kind, name]
    common = SUBSET_PARAMS if kind == "dataset" else ()
    own = [param for param in card.params.values() if param.name not in common]
    expected = [(param.name, "(required)" if param.required else param.shown) for param in own]
    assert [(row[0], row[1]) for row in table_rows(text)] == expected
    assert all(len(row) == 4 and row[3] for row in table_rows(text))
    flat = " ".join(text.split())
    assert f"ersion {card.version}" in flat
    if kind != "dataset":
        assert card.cite in flat
    if kind == "attack":
        assert f"norm {card.norm}" in flat
    if not own:
        assert "No own parameters" in flat or "No parameters" in flat


@pytest.mark.parametrize("name", sorted(Registry().cards("victim")))
def test_a_victims_size_is_the_stated_one(name: str) -> None:
    model = build_victim(name, make_toy_set(per_class=1).info, 0)
    assert (
        f"{sum(weight.numel() for weight in model.parameters()):,} parameters at 10 classes"
        in sections()["victim", name]
    )


def test_the_table_of_protocols_is_that_of_the_code() -> None:
    text = (DOCS / "methods" / "victims.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in table_rows(text)}
    expected = {
        item.name: [format_value(getattr(protocol, item.name)) for protocol in PROTOCOLS.values()]
        for item in fields(Protocol)
        if item.name not in ("name", "summary")
    }
    assert rows == expected
    assert f"| setting | {' | '.join(f'`{name}`' for name in PROTOCOLS)} |" in text
