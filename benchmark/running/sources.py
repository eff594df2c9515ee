"""Find the files that decide a result: the files of its methods and what these import.

Files are parsed and never run. Among the project's files, only those count that turn images and
seeds into numbers. Code that stores, plans, measures or shows numbers is left out, and its imports
are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from benchmark.catalogue.registry import ROOT, Card, Registry
from benchmark.planning.jobs import Job, Method, PurifyJob, TrainJob
from benchmark.storage.files import sha256_of

CORE = "benchmark/running/stages.py"  # its imports reach all that each stage runs
DECIDING = (
    "attacks/",
    "defenses/",
    "benchmark/api.py",
    "benchmark/catalogue/protocol.py",
    "benchmark/data.py",
    "benchmark/datasets/",
    "benchmark/keys.py",
    "benchmark/planning/jobs.py",
    "benchmark/running/craft.py",
    "benchmark/running/deterministic.py",
    "benchmark/running/global_random.py",
    "benchmark/training/",
    "benchmark/victims/",
    CORE,
)


def sources(job: Job, registry: Registry) -> dict[str, str]:
    """Return file -> sha256, for all files that decide the result of a job.

    A file of the project is named by its path from the project's root, a plugin by its name alone,
    and a file beside a plugin that it imports as ``plugin/helper.py``.
    """
    cards = {card.file: card for card in _cards(job, registry)}
    helpers = {file: card for card in cards.values() for file in card.helpers}
    named = {file: f"{card.file.stem}/{file.name}" for file, card in helpers.items()}
    named |= {file: _shown(file) for file in cards}
    named |= {file: _shown(file) for file in reached((ROOT / CORE, *cards, *helpers))}
    return dict(sorted((name, _sha256(file)) for file, name in named.items()))


def reached(files: tuple[Path, ...]) -> frozenset[Path]:
    """Return the project's deciding files among ``files`` and what they import, at any depth.

    The data files of a module, such as ``_ar_kernels.json`` of ``_ar_kernels.py``, come with it.
    """
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imports(file)
    deciding = [file for file in found if _decides(file)]
    return frozenset(other for file in deciding for other in (file, *_data_of(file)))


def _cards(job: Job, registry: Registry) -> Iterator[Card]:
    """Yield the cards of the data set, methods and networks that a job's result depends on."""
    yield registry.card("dataset", job.data.spec.name)
    attacks: tuple[Method, ...] = ()
    if isinstance(job, TrainJob):
        attacks = job.attacks
    elif not isinstance(job, PurifyJob):
        attacks = (job.attack,)
    for attack in attacks:
        yield registry.card("attack", attack.spec.name)
        if isinstance(surrogate := attack.spec.params.get("surrogate"), str):
            yield registry.card("victim", surrogate)
    if isinstance(job, (PurifyJob, TrainJob)):
        yield registry.card("defense", job.defense.spec.name)
    if isinstance(job, TrainJob):
        yield registry.card("victim", job.victim.name)


def _data_of(module: Path) -> list[Path]:
    """Return the data files of a module: those beside it that have its name."""
    return [file for file in module.parent.glob(f"{module.stem}.*") if file.suffix != ".py"]


def _decides(file: Path) -> bool:
    return file.is_relative_to(ROOT) and file.relative_to(ROOT).as_posix().startswith(DECIDING)


def _imports(file: Path) -> tuple[Path, ...]:
    """Return the project's deciding files that ``file`` imports, except for types alone."""
    return _imports_of(file.read_bytes())


@cache
def _imports_of(source: bytes) -> tuple[Path, ...]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = {file for node in ast.walk(tree) for file in _targets(node) if _decides(file)}
    return tuple(sorted(found))


def _targets(node: ast.AST) -> Iterator[Path]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _files(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield from _files(f"{node.module}.{alias.name}") or _homes(node.module, alias.name)


def _files(module: str) -> list[Path]:
    """Return the file of a module of the project; the list is empty for other modules."""
    base = ROOT.joinpath(*module.split("."))
    return [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]


def _homes(module: str, name: str) -> Iterable[Path]:
    """Yield the files that a name comes from: the module's, or those a package imports it from."""
    for file in _files(module):
        yield from _exports(file).get(name, ()) if file.name == "__init__.py" else (file,)


@cache
def _exports(package: Path) -> dict[str, list[Path]]:
    """Return name -> files of the modules from which a package's ``__init__.py`` imports it."""
    found: dict[str, list[Path]] = {}
    for node in ast.walk(ast.parse(package.read_bytes(), filename=str(package))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).extend(_files(node.module))
    return found


def _shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name


def _sha256(file: Path) -> str:
    return _own_sha256(file) if file.is_relative_to(ROOT) else sha256_of(file)


_own_sha256 = cache(sha256_of)  # the project's files do not change while a process lives
