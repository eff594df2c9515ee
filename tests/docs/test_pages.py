"""The pages hold together: links, names, index, lines, the first commands, the citation."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmark import __version__
from benchmark.catalogue.registry import ROOT, Registry
from test_imports import FLOORS

DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted([*DOCS.rglob("*.md"), *TOP, ROOT / "results" / "published.md"])
SENTENCES = [page for page in PAGES if page.name != "published.md"]  # a list of sources
CODE = re.compile(r"^```.*?^```$", re.M | re.S)
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e "
COMMANDS = f"""\
{SET_UP}. && .venv/bin/python run_benchmark.py
{SET_UP}'.[dev]' && .venv/bin/python -m pytest
"""
FOLDERS = "benchmark|attacks|defenses|tests|perf|docs|results/baselines"


def prose(page: Path) -> list[str]:
    """Return the lines of a page that are neither code, nor tables, nor comments."""
    lines = CODE.sub("", page.read_text(encoding="utf-8")).splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("|", "<!--"))]


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name, made of its headings as GitHub does."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing(page: Path) -> list[str]:
    """Return the files, tests, links and anchors that a page names and that do not exist."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*(?:::[\w:]+)?)`", text)
    named = [name for name in named if not re.search("[A-Z]{3}", name)]  # SUITE stands for a name
    lost = [name for name in named if not (ROOT / name.partition("::")[0]).exists()]
    lost += [name for name in named if "::" in name and not is_test(name)]
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(f"{target}#{anchor}" if anchor else target)
    return lost


def is_test(node: str) -> bool:
    """Say whether ``tests/test_x.py::TestY::test_z`` exists."""
    file, *names = node.split("::")
    if not (ROOT / file).exists():
        return False
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for name in names:
        found = [
            item
            for item in body
            if isinstance(item, (ast.FunctionDef, ast.ClassDef)) and item.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_tests_and_links_that_a_page_names_exist(page: Path) -> None:
    assert missing(page) == []


def test_the_lookup_finds_mistakes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, `b`\n[a](#a-title-b) [b](#b) [c](no.md) [d](page.md#a-title-b) "
        "`benchmark/gone.py` `tests/docs/test_pages.py::test_gone` `tests/gone.py::test_x`\n"
        "```\n[e](no.md)\n```\n",
        encoding="utf-8",
    )
    assert sorted(set(missing(page))) == [
        "#b",
        "benchmark/gone.py",
        "no.md",
        "tests/docs/test_pages.py::test_gone",
        "tests/gone.py::test_x",
    ]
    assert is_test("tests/docs/test_pages.py::test_the_lookup_finds_mistakes")


def test_no_text_names_a_module_that_is_gone() -> None:
    """The names in code blocks, suites, settings and workflows count too."""
    texts = [*PAGES, *ROOT.glob("benchmark/**/*.yaml"), *ROOT.glob("*.toml"), ROOT / "CITATION.cff"]
    texts += [*ROOT.glob(".github/**/*.yml")]
    gone = []
    for file in texts:
        names = re.findall(r"\bbenchmark/[\w/]+\.\w+", file.read_text(encoding="utf-8"))
        gone += [f"{file.name}: {name}" for name in names if not (ROOT / name).exists()]
    assert gone == []


def test_the_readme_begins_with_the_two_commands() -> None:
    """CI reads them from there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    assert block is not None
    assert block.groups() == ("sh", COMMANDS)


def test_the_readme_is_one_page_with_a_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert len(pictures) == 1
    assert (ROOT / pictures[0][1]).stat().st_size < 300_000
    assert len(text.splitlines()) <= 95


@pytest.mark.parametrize("kind", ["attack", "defense", "dataset"])
def test_the_readme_names_every_method(kind: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is there")[2]
    title = {"attack": "Attacks", "defense": "Defenses", "dataset": "Data sets"}[kind]
    line = next(line for line in text.splitlines() if line.startswith(f"- **{title}**"))
    assert set(re.findall(r"`(\w+)`", line)) == set(Registry().cards(kind)) - {"none"}


def test_the_index_names_every_page() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("*.md")} - {"README.md"}
    links = set(re.findall(r"\]\(([^)#:]+)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert pages - links == set()
    methods = {page.name for page in (DOCS / "methods").glob("*.md")} - {"README.md"}
    text = (DOCS / "methods" / "README.md").read_text(encoding="utf-8")
    assert methods - set(re.findall(r"\]\(([^)#:]+)\)", text)) == set()


def test_the_table_of_floors_is_that_of_the_test() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", text, re.M)
    shown = [(int(number), set(re.findall(r"\w+", rooms))) for number, rooms in rows]
    expected = [(len(FLOORS) - i, rooms - {"benchmark"}) for i, rooms in enumerate(FLOORS)]
    assert shown == expected


def test_the_tree_names_every_room() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("## The tree")[2].partition("## ")[0]
    rooms = {room for rooms in FLOORS for room in rooms} - {"benchmark"}
    rooms |= {"suites", "scheduler", "statistics"}
    assert [room for room in rooms if not re.search(rf"^ *{room}(?:/|\.py) ", tree, re.M)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_a_wall(page: Path) -> None:
    """Lines of prose are short enough for a reader to find their ends."""
    shown = [re.sub(r"\]\([^)]*\)", "]", line) for line in prose(page)]
    assert [line for line in shown if len(line) > 400] == []


@pytest.mark.parametrize("page", SENTENCES, ids=lambda page: page.name)
def test_one_sentence_a_line(page: Path) -> None:
    joined = [line for line in prose(page) if two_sentences(line)]
    assert joined == []


@pytest.mark.parametrize("page", SENTENCES, ids=lambda page: page.name)
def test_no_sentence_is_wrapped(page: Path) -> None:
    """A line that is no heading and no picture ends as a sentence or a list item does."""
    text = [line for line in prose(page) if not line.startswith(("#", "!"))]
    assert [line for line in text if not re.search(r"[.:?!;][*_)\"]*$", line)] == []


def two_sentences(line: str) -> bool:
    """Say whether a sentence ends within the line and another one begins."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"", "x", re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line))
    plain = re.sub(r"\b(?:et al|e\.g|i\.e|vs)\.", "", plain)
    return re.search(r"[.!?][*_)]* +[*_\[(]*[A-Zx]", plain) is not None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("One sentence, with `a. B` and 0.5 points.", False),
        ("Zhang et al. say so.", False),
        ("1. First item", False),
        ("One. Two.", True),
        ("**One.** Two.", True),
        ("One. `code` begins the second.", True),
    ],
)
def test_two_sentences_are_seen(line: str, expected: bool) -> None:
    assert two_sentences(line) is expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_nothing_twice(page: Path) -> None:
    """A section that stands twice is a slip of an editor."""
    lines = [line for line in prose(page) if len(line) > 60 and "Shown right by" not in line]
    assert [line for line, count in Counter(lines).items() if count > 1] == []


def test_the_citation_file_is_complete() -> None:
    """The keys that CFF 1.2.0 requires, and no persons."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["cff-version"] == "1.2.0"
    assert cff["authors"] == [{"name": "uebench contributors"}]
    assert (cff["version"], cff["type"], cff["license"]) == (__version__, "software", "MIT")
