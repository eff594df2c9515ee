"""Read the card of a method from the syntax tree of its file, without running the file."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.catalogue.limits import Limits, parameter_docs, read_annotation
from benchmark.catalogue.source import Source, literal, qualified
from benchmark.catalogue.spec import (
    LATER_SUBSET_PARAMS,
    Value,
    defaults_by_choice,
    did_you_mean,
    format_value,
    nearest,
)

API = Path(__file__).resolve().parent.parent / "api.py"
BASES = {"attack": "Attack", "defense": "Defense", "dataset": "Dataset"}
NORMS = ("linf", "l2", "l0", "none")
NEEDED = ("version", "cite")
# The keywords of each decorator besides the needed ones.
DECLARED: Mapping[str, tuple[str, ...]] = {
    "attack": ("norm", "effort", "toy", "trained_surrogate", "files", "later", "by_choice"),
    "defense": ("needs", "filters", "effort", "toy", "later", "by_choice"),
    "dataset": ("later",),
}
# An example for each keyword, whose type the keyword must have.
EXAMPLES: Mapping[str, Any] = {
    "version": 1,
    "cite": "arXiv:2301.13838",
    "norm": "linf",
    "needs": ("clean:500",),
    "filters": True,
    "effort": {"epochs": 3.0},
    "toy": {"epochs": 1},
    "trained_surrogate": ("surrogate", "surrogate_protocol"),
    "files": ("path",),
    "later": ("anneal",),
    "by_choice": {"norm=l2": {"eps": 0.5}},
}


@dataclass(frozen=True)
class Param:
    """One parameter.

    Attributes:
        type: ``int``, ``float``, ``str``, ``bool``, or several of them joined by ``|``.
        shown: the default as the source writes it: ``8 / 255``.
        doc: its line in the docstring of the class.
        required: whether it has no default.
        limits: its choices and its range.
    """

    name: str
    type: str
    default: Value
    shown: str
    doc: str = ""
    required: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Card:
    """What is known of a method without importing it.

    Attributes:
        kind: ``attack``, ``defense``, ``dataset`` or ``victim``.
        summary: first line of the docstring.
        module: the name to import it by; empty for a file given with ``--plugin``.
        overrides: names of the methods that its class defines, including those of base classes in
            the same file or in a ``_*.py`` beside it.
        content: sha256 of a plugin's files, which is part of the keys of its results. It is empty
            for the project's own methods, whose ``version`` is in the keys.

    The other fields are those that the decorators of ``api.py`` declare.
    """

    kind: str
    name: str
    summary: str
    version: int
    cite: str
    params: Mapping[str, Param]
    file: Path
    module: str = ""
    norm: str = ""
    needs: tuple[str, ...] = ()
    overrides: frozenset[str] = field(default_factory=frozenset)
    effort: Mapping[str, float] = field(default_factory=dict)
    trained_surrogate: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    by_choice: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    content: str = ""
    helpers: tuple[Path, ...] = ()

    def defaults(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """The default of each parameter; ``params`` decide those that depend on a choice."""
        plain = {name: param.default for name, param in self.params.items()}
        return plain | defaults_by_choice(self.by_choice, {**plain, **params})

    def unknown(self, params: Iterable[str]) -> list[str]:
        """A message for each name among ``params`` that is not a parameter of the method."""
        return [
            f'{self.kind} "{self.name}" has no parameter "{name}"'
            f"{did_you_mean(name, sorted(self.params))}"
            for name in params
            if name not in self.params
        ]

    @property
    def purifies(self) -> bool:
        """Whether the defense changes the training set before training."""
        return "purify" in self.overrides

    @property
    def trains(self) -> bool:
        """Whether the defense acts during training or at test time."""
        return bool(self.overrides & {"augment", "loss", "at_test"})


def read_card(kind: str, file: Path, name: str, module: str, plugin: bool) -> Card | None:
    """Read a method's card from its source; None if the file holds no method of that kind.

    Args:
        kind: ``attack``, ``defense``, ``dataset`` or ``victim``.
        file: the file to read.
        name: the name of the method.
        module: the name to import it by; empty for a file given with ``--plugin``.
        plugin: whether the file is not one of the project's own.

    Raises:
        SyntaxError: if the file is not Python.
        ValueError: if a default is not a literal, an annotation cannot be read, or a declaration is
            missing or misplaced.
    """
    source = Source.read(file, module.rpartition(".")[0])
    if kind == "victim":
        return _victim_card(source, name, module, plugin)
    for node in source.classes.values():
        if (call := _decorated(node, kind)) is not None:
            return _class_card(kind, source, name, module, node, call, plugin)
    return None


def _victim_card(source: Source, name: str, module: str, plugin: bool) -> Card | None:
    body = source.tree.body
    if not any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in body):
        return None
    return Card(
        kind="victim",
        name=name,
        summary=(ast.get_docstring(source.tree) or "").partition("\n")[0],
        version=_victim_version(source.tree),
        cite="",
        params={},
        file=source.file,
        module=module,
        content=content_of(source) if plugin else "",
        helpers=source.beside if plugin else (),
    )


def _victim_version(tree: ast.Module) -> int:
    """The version that a line ``VERSION = 2`` of a victim's file sets; 1 without such a line."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(node, ast.Assign | ast.AnnAssign) and target is not None:
            if ast.unparse(target) != "VERSION" or node.value is None:
                continue
            version = literal(node.value, "VERSION")
            if not isinstance(version, int) or isinstance(version, bool) or version < 1:
                raise ValueError(
                    f"VERSION = {version!r} of a victim is not a whole number from 1 on"
                )
            return version
    return 1


def _class_card(
    kind: str,
    source: Source,
    name: str,
    module: str,
    node: ast.ClassDef,
    call: ast.Call,
    plugin: bool,
) -> Card:
    about = _declarations(kind, node.name, call)
    params: dict[str, Param] = dict(_base_params(kind))
    overrides: set[str] = set()
    docs: dict[str, str] = {}
    for where, ancestor in source.lineage(node):
        docs |= parameter_docs(ast.get_docstring(ancestor) or "")
        params |= _fields(ancestor, where)
        overrides |= set(_methods(ancestor))
        _refuse_misplaced(kind, ancestor)
    params = {key: replace(param, doc=docs.get(key, "")) for key, param in params.items()}
    _check_names(node.name, about, params)
    return Card(
        kind=kind,
        name=name,
        summary=(ast.get_docstring(node) or "").partition("\n")[0],
        version=about["version"],
        cite=about["cite"],
        params=params,
        file=source.file,
        module=module,
        norm=about.get("norm", "linf" if kind == "attack" else ""),
        needs=about.get("needs", ()),
        overrides=frozenset(overrides),
        effort=about.get("effort", {}),
        trained_surrogate=about.get("trained_surrogate", ()),
        files=about.get("files", ()),
        later=(*about.get("later", ()), *(LATER_SUBSET_PARAMS if kind == "dataset" else ())),
        by_choice=about.get("by_choice", {}),
        content=content_of(source) if plugin else "",
        helpers=source.beside if plugin else (),
    )


def _declarations(kind: str, cls: str, call: ast.Call) -> dict[str, Any]:
    """The values of the decorator's keywords, each checked to have the right type."""
    known = [*NEEDED, *DECLARED[kind]]
    about: dict[str, Any] = {}
    for keyword in call.keywords:
        name = keyword.arg or "**"
        if name not in known:
            raise ValueError(f'@{kind} has no keyword "{name}"{did_you_mean(name, known)}')
        value = literal(keyword.value, f"@{kind}: {name}")
        if type(value) is not type(EXAMPLES[name]):
            raise ValueError(
                f"@{kind} of class {cls}: {name}={value!r}; "
                f"write, for example, {name}={EXAMPLES[name]!r}"
            )
        about[name] = value
    if missing := [name for name in NEEDED if name not in about]:
        raise ValueError(
            f"@{kind} of class {cls} lacks {' and '.join(missing)}; "
            f'it needs version=<int> and cite="<source>"'
        )
    if (norm := about.get("norm", "none")) not in NORMS:
        raise ValueError(
            f'norm is "{norm}", expected {Limits(NORMS).shown("norm")}{nearest(norm, list(NORMS))}'
        )
    return about


def _check_names(cls: str, about: Mapping[str, Any], params: Mapping[str, Param]) -> None:
    """Refuse declarations that name an unknown parameter.

    ``later`` may not name a parameter that is required, names a file or decides a surrogate.
    """
    for name in ("files", "later", "toy", "effort", "trained_surrogate"):
        if unknown := [key for key in about.get(name, ()) if key and key not in params]:
            raise ValueError(
                f"{name} of class {cls} names {', '.join(unknown)}, which is no parameter"
            )
    by_choice = about.get("by_choice", {})
    chosen = {choice.partition("=")[0] for choice in by_choice}.union(*by_choice.values())
    if strange := sorted(chosen - set(params)):
        raise ValueError(
            f"by_choice of class {cls} names {', '.join(strange)}, which is no parameter"
        )
    always = {
        *about.get("files", ()),
        *about.get("trained_surrogate", ()),
        *(name for name, param in params.items() if param.required),
    }
    if unfit := [name for name in about.get("later", ()) if name in always]:
        raise ValueError(
            f"later of class {cls} names {', '.join(unfit)}, "
            "which is required, a file or decides a surrogate's training"
        )


def _refuse_misplaced(kind: str, node: ast.ClassDef) -> None:
    """Refuse a declaration in the class body that belongs into the decorator."""
    for item in node.body:
        target = item.target if isinstance(item, ast.AnnAssign) else None
        if isinstance(item, ast.Assign):
            target = item.targets[0]  # type: ignore[assignment]  # a name, if it is a declaration
        name = target.id if isinstance(target, ast.Name) else ""
        if name in NEEDED or name in DECLARED[kind]:
            raise ValueError(
                f"class {node.name} sets {name}; declare it in the decorator: "
                f"@{kind}(..., {name}={EXAMPLES[name]!r})"
            )


@cache
def _base_params(kind: str) -> Mapping[str, Param]:
    """The parameters that every method of a kind has, from the base class in ``api.py``."""
    source = Source.read(API, "benchmark")
    return _fields(source.classes[BASES[kind]], source)


def _fields(node: ast.ClassDef, source: Source) -> dict[str, Param]:
    """The annotated fields in the body of a class, without their documentation."""
    fields: dict[str, Param] = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        whole = item.annotation
        outer = whole.value if isinstance(whole, ast.Subscript) else whole
        if qualified(outer, source.names) == "typing.ClassVar":
            continue
        name, where = item.target.id, f"{node.name}.{item.target.id}"
        kinds, limits = read_annotation(item.annotation, source.names, where)
        default = None if item.value is None else literal(item.value, where)
        if not isinstance(default, (bool, int, float, str, type(None))):
            raise ValueError(
                f"default of {where} is a {type(default).__name__}; "
                "parameters are numbers, text or bool"
            )
        if item.value is not None and (problem := limits.problem(name, default)):
            raise ValueError(f"default of {where}: {problem}")
        shown = format_value(default)
        if item.value is not None and not isinstance(default, (bool, str, type(None))):
            shown = ast.unparse(item.value)  # as the author wrote it: 8/255
        fields[name] = Param(
            name, " | ".join(kinds), default, shown, required=item.value is None, limits=limits
        )
    return fields


def _methods(node: ast.ClassDef) -> Iterator[str]:
    """Yield the names that a class body defines or assigns, without its fields."""
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield item.name
        elif isinstance(item, ast.Assign):
            yield from (target.id for target in item.targets if isinstance(target, ast.Name))


def _decorated(node: ast.ClassDef, kind: str) -> ast.Call | None:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            target = decorator.func
            called = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if called == kind:
                return decorator
    return None


def content_of(source: Source) -> str:
    """The sha256 of a plugin's file, together with the files beside it that it imports."""
    texts = [source.text, *(file.read_bytes() for file in source.beside)]
    digests = [hashlib.sha256(text).hexdigest() for text in texts]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
