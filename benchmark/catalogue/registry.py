"""Finds methods by name without importing them.

``cards`` reads each file's syntax tree: name, parameters with defaults, citation. Nothing of a file runs until ``load``
imports it, so that listing and planning are instant and a broken plugin hurts nobody else.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.spec import (
    Spec,
    Value,
    defaults_by_choice,
    did_you_mean,
    format_value,
)

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = {
    "attack": ROOT / "attacks",
    "defense": ROOT / "defenses",
    "dataset": ROOT / "benchmark" / "datasets",
    "victim": ROOT / "benchmark" / "victims",
}
BASES = {"attack": "Attack", "defense": "Defense", "dataset": "Dataset"}
CLASS_VARS = (
    "norm",
    "needs",
    "filters",
    "effort",
    "trained_surrogate",
    "files",
    "later",
    "by_choice",
)
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
}


@dataclass(frozen=True)
class Param:
    """One parameter: its annotation, its default, and the default as the source writes it (``8 / 255``)."""

    name: str
    type: str
    default: Value
    shown: str
    doc: str = ""
    required: bool = False


@dataclass(frozen=True)
class Card:
    """What is known of a method without importing it.

    ``content`` is the sha256 of the file of a plugin, which is in the key of whatever it defines; the project's own
    methods have none, since their ``version`` speaks for them.
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

    def defaults(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """The default of each parameter, where ``params`` decide those that depend on a choice."""
        plain = {name: param.default for name, param in self.params.items()}
        return plain | defaults_by_choice(self.by_choice, {**plain, **params})

    def unknown(self, params: Iterable[str]) -> list[str]:
        """A message for each name among ``params`` that is no parameter of the method."""
        return [
            f'{self.kind} "{self.name}" has no parameter "{name}"{did_you_mean(name, sorted(self.params))}'
            for name in params
            if name not in self.params
        ]

    @property
    def purifies(self) -> bool:
        """Does the defense change the training set before training?"""
        return "purify" in self.overrides

    @property
    def trains(self) -> bool:
        """Does the defense act during training or at test time?"""
        return bool(self.overrides & {"augment", "loss", "at_test"})


@dataclass(frozen=True)
class Broken:
    """A method file that cannot be read, with the reason."""

    kind: str
    name: str
    file: Path
    reason: str


class Registry:
    """All methods of all kinds: the project's folders, installed entry points, and files given with ``--plugin``."""

    def __init__(self, plugins: tuple[Path, ...] = ()) -> None:
        self.plugins = plugins
        self.broken: list[Broken] = []
        self._cards: dict[str, dict[str, Card]] = {}

    def cards(self, kind: str) -> Mapping[str, Card]:
        """name -> card for one kind: ``attack``, ``defense``, ``dataset`` or ``victim``."""
        if kind not in self._cards:
            self._cards[kind] = {}
            for file, name, module in self._files(kind):
                try:
                    card = read_card(kind, file, name, module)
                except (SyntaxError, ValueError, TypeError, ArithmeticError, OSError) as error:
                    self.broken.append(Broken(kind, name, file, str(error)))
                    continue
                if card is None:
                    continue
                if (other := self._cards[kind].get(card.name)) is None:
                    self._cards[kind][card.name] = card
                    continue
                clash = f'two {kind}s are called "{card.name}": {other.file} and {card.file}; rename one'
                if not module:  # given by hand with --plugin: it must not be passed over
                    raise ValueError(clash)
                self.broken.append(Broken(kind, name, file, clash))
        return self._cards[kind]

    def note_empty_plugins(self) -> None:
        """Adds the files given with ``--plugin`` that hold no method of any kind to ``broken``."""
        if not self.plugins:
            return  # reading all kinds costs as much as a whole `list`
        read = {card.file for kind in FOLDERS for card in self.cards(kind).values()} | {
            broken.file for broken in self.broken
        }
        for plugin in self.plugins:
            if (file := plugin.resolve()) not in read:
                reason = "holds no method; decorate a class with @attack, @defense or @dataset, or define build(info) for a victim"
                self.broken.append(Broken("plugin", plugin.stem, file, reason))

    def card(self, kind: str, name: str) -> Card:
        """The card of one method.

        Raises:
            ValueError: if no method has that name; the message names the nearest one, or why its file cannot be read.
        """
        cards = self.cards(kind)
        if name in cards:
            return cards[name]
        for broken in self.broken:
            if (broken.kind, broken.name) == (kind, name):
                raise ValueError(
                    f'{kind} "{name}" cannot be read from {broken.file}: {broken.reason}'
                )
        raise ValueError(f'unknown {kind} "{name}"{did_you_mean(name, sorted(cards))}')

    def resolve(self, kind: str, spec: Spec, defaults: Mapping[str, Value] | None = None) -> Spec:
        """The spec with every parameter of its method, checked; ``defaults`` override the method's own.

        If the spec makes another choice than ``defaults``, such as ``norm=l2``, the values of
        ``defaults`` that depend on this choice were meant for the other one. The method's own
        defaults for the spec's choice then hold.

        Parameters that the method has as ``later`` are left out at their default, so that results from before they came keep their keys.

        An attack's parameter called ``surrogate`` names a victim, one called ``surrogate_protocol`` a protocol.

        Raises:
            ValueError: for an unknown name or parameter, a value of the wrong type, a surrogate that is no victim, or
                its protocol that is none.
        """
        card = self.card(kind, spec.name)
        suite = dict(defaults or {})
        meant, own = card.defaults(suite), card.defaults({**suite, **spec.params})
        given = {name: value for name, value in suite.items() if own.get(name) == meant.get(name)}
        given |= spec.params
        if unknown := card.unknown(given):
            raise ValueError(unknown[0])
        missing = [
            param.name
            for param in card.params.values()
            if param.required and param.name not in given
        ]
        if missing:
            raise ValueError(
                f'{kind} "{spec.name}" needs {", ".join(missing)}; write {spec.name}[{missing[0]}=...]'
            )
        full = {
            name: _typed(kind, spec.name, param, given.get(name, own[name]))
            for name, param in card.params.items()
        }
        if kind == "attack":
            self._check_surrogate(spec.name, full)
        return spec.with_params(
            {
                name: value
                for name, value in full.items()
                if name not in card.later or value != card.params[name].default
            }
        )

    def _check_surrogate(self, name: str, params: Mapping[str, Value]) -> None:
        for param, what, find in (
            ("surrogate", "victim", lambda value: self.card("victim", value)),
            ("surrogate_protocol", "protocol", get_protocol),
        ):
            if isinstance(value := params.get(param), str):
                try:
                    find(value)
                except ValueError as error:
                    raise ValueError(
                        f"attack {name}: {param}={value}: {error} (the parameter of this name is a {what})"
                    ) from error

    def load(self, kind: str, name: str) -> Any:
        """Imports the method's file and returns its class (for a victim, the module)."""
        card = self.card(kind, name)
        if card.module:
            module = importlib.import_module(card.module)
        else:
            module = _import_file(card.file)
        if kind == "victim":
            return module
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and value.__module__ == module.__name__
                and _is_method(value, kind)
            ):
                value.name = name  # type: ignore[attr-defined]
                return value
        raise ValueError(
            f'{card.file} defines no class decorated with @{kind}; "{name}" cannot be used'
        )

    def build(self, kind: str, spec: Spec) -> Any:
        """An instance of the method with the resolved spec's parameters.

        Raises:
            ValueError: if the method refuses its parameters (``__post_init__``), naming the method.
        """
        cls = self.load(kind, spec.name)
        try:
            return cls(**spec.params)
        except (ValueError, TypeError) as error:
            raise ValueError(f'{kind} "{spec}": {error}') from error

    def _files(self, kind: str) -> Iterator[tuple[Path, str, str]]:
        folder = FOLDERS[kind]
        package = ".".join(folder.relative_to(ROOT).parts)
        for file in sorted(folder.glob("[!_]*.py")):
            yield file, file.stem, f"{package}.{file.stem}"
        for entry in entry_points(group=f"uebench.{kind}s"):
            module = entry.value.partition(":")[0]
            try:
                found = importlib.util.find_spec(module)
                if found is None or found.origin is None:
                    raise ImportError(f'no module "{module}"')
            except (
                Exception
            ) as error:  # a stranger's package may raise anything when its parent is imported
                self.broken.append(
                    Broken(kind, entry.name, Path(module), f"{type(error).__name__}: {error}")
                )
                continue
            yield Path(found.origin), entry.name, module
        for plugin in self.plugins:
            if not plugin.is_file():
                raise FileNotFoundError(
                    f"--plugin {plugin}: no such file; give the path of one Python file"
                )
            yield plugin.resolve(), plugin.stem, ""


def read_card(kind: str, file: Path, name: str, module: str = "") -> Card | None:
    """Reads a method's card from its source; None if the file holds no method of that kind.

    Raises:
        SyntaxError: if the file is not Python.
        ValueError: if a default is not a literal, or the decorator lacks ``version`` or ``cite``.
    """
    source = file.read_bytes()
    tree = ast.parse(source.decode(), filename=str(file))
    content = "" if file.parent == FOLDERS[kind] else hashlib.sha256(source).hexdigest()
    if kind == "victim":
        if not any(
            isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body
        ):
            return None
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        return Card(
            kind, name, summary, _victim_version(tree), "", {}, file, module, content=content
        )
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (call := _decorated(node, kind)) is not None:
            return replace(_class_card(kind, file, name, module, node, call), content=content)
    return None


def _victim_version(tree: ast.Module) -> int:
    """``VERSION = 2`` at the top of a victim's file; 1 where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            version = _literal(node.value, "VERSION")
            if not isinstance(version, int) or isinstance(version, bool) or version < 1:
                raise ValueError(
                    f"VERSION = {version!r} of a victim is not a whole number from 1 on"
                )
            return version
    return 1


def _class_card(
    kind: str, file: Path, name: str, module: str, node: ast.ClassDef, call: ast.Call
) -> Card:
    about = {keyword.arg: _literal(keyword.value, f"@{kind}") for keyword in call.keywords}
    if not isinstance(about.get("version"), int) or not isinstance(about.get("cite"), str):
        raise ValueError(f'@{kind} of class {node.name} needs version=<int> and cite="<source>"')
    fields, class_vars = _members(node)
    params = {**_base_params(kind), **fields}
    docs = ast.get_docstring(node) or ""
    needs = class_vars.get("needs", ())
    for variable in ("files", "later"):
        if unknown := [name for name in class_vars.get(variable, ()) if name not in params]:
            raise ValueError(
                f"{variable} of class {node.name} names {', '.join(unknown)}, which is no parameter"
            )
    by_choice = class_vars.get("by_choice", {})
    named = {choice.partition("=")[0] for choice in by_choice}.union(*by_choice.values())
    if strange := sorted(named - set(params)):
        raise ValueError(
            f"by_choice of class {node.name} names {', '.join(strange)}, which is no parameter"
        )
    always = {
        *class_vars.get("files", ()),
        *class_vars.get("trained_surrogate", ()),
        *(name for name in params if params[name].required),
    }
    if unfit := [name for name in class_vars.get("later", ()) if name in always]:
        raise ValueError(
            f"later of class {node.name} names {', '.join(unfit)}, which is required, a file or decides a surrogate's training"
        )
    return Card(
        kind=kind,
        name=name,
        summary=docs.partition("\n")[0],
        version=about["version"],
        cite=about["cite"],
        params=params,
        file=file,
        module=module,
        norm=str(class_vars.get("norm", "linf" if kind == "attack" else "")),
        needs=tuple(needs) if isinstance(needs, (tuple, list)) else (str(needs),),
        overrides=frozenset(item.name for item in node.body if isinstance(item, ast.FunctionDef)),
        effort=class_vars.get("effort", {}),
        trained_surrogate=tuple(class_vars.get("trained_surrogate", ())),
        files=tuple(class_vars.get("files", ())),
        later=tuple(class_vars.get("later", ())),
        by_choice=by_choice,
    )


@cache
def _base_params(kind: str) -> Mapping[str, Param]:
    """Parameters that every method of a kind has, from the base class in api.py."""
    tree = ast.parse((ROOT / "benchmark" / "api.py").read_text(encoding="utf-8"))
    base = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == BASES[kind]
    )
    return _members(base)[0]


def _members(node: ast.ClassDef) -> tuple[dict[str, Param], dict[str, Any]]:
    fields: dict[str, Param] = {}
    class_vars: dict[str, Any] = {}
    docs = _parameter_docs(ast.get_docstring(node) or "")
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name, kind = item.target.id, ast.unparse(item.annotation)
            if kind.startswith("ClassVar"):
                class_vars[name] = _literal(item.value, name) if item.value is not None else None
                continue
            default = None if item.value is None else _literal(item.value, f"{node.name}.{name}")
            if not isinstance(default, (bool, int, float, str, type(None))):
                raise ValueError(
                    f"default of {node.name}.{name} is a {type(default).__name__}; parameters are numbers, text or bool"
                )
            shown = format_value(default)
            if item.value is not None and not isinstance(default, (bool, str, type(None))):
                shown = ast.unparse(item.value)  # as people wrote it: 8/255
            fields[name] = Param(
                name, kind, default, shown, docs.get(name, ""), required=item.value is None
            )
        elif (
            isinstance(item, ast.Assign)
            and isinstance(target := item.targets[0], ast.Name)
            and target.id in CLASS_VARS
        ):
            class_vars[target.id] = _literal(item.value, target.id)
    return fields, class_vars


def _parameter_docs(docstring: str) -> dict[str, str]:
    """The lines ``name: text`` of a docstring's ``Parameters:`` section."""
    docs: dict[str, str] = {}
    inside, last = False, ""
    for line in docstring.splitlines():
        if line.strip() in ("Parameters:", "Args:"):
            inside = True
        elif inside and not line.strip():
            break
        elif inside:
            name, colon, text = line.strip().partition(":")
            if colon and name.isidentifier():
                docs[name], last = text.strip(), name
            elif last:
                docs[last] += " " + line.strip()
    return docs


def _decorated(node: ast.ClassDef, kind: str) -> ast.Call | None:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            target = decorator.func
            called = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            if called == kind:
                return decorator
    return None


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _literal(node: ast.expr, where: str) -> Any:
    """The value of a literal or of arithmetic on literals; nothing is executed."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_literal(item, where) for item in node.elts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {
            _literal(key, where): _literal(item, where)
            for key, item in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_literal(node.operand, where))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_literal(node.left, where), _literal(node.right, where))
    raise ValueError(
        f"{where} = {ast.unparse(node)} is not a literal; write a number, a text, a bool, or arithmetic such as 8 / 255"
    )


def _typed(kind: str, method: str, param: Param, value: Value) -> Value:
    """``value`` as the parameter's type, so that ``1`` and ``1.0`` give one key."""
    kinds = [part.strip() for part in param.type.split("|")]
    if value is None and "None" in kinds:
        return None
    for name in kinds:
        allowed = _TYPES.get(name, ())
        if isinstance(value, allowed) and (name == "bool") == isinstance(value, bool):
            return float(value) if name == "float" else value  # type: ignore[arg-type]
    if "str" in kinds and value is not None:
        return format_value(value)
    raise ValueError(
        f'{kind} "{method}": {param.name}={format_value(value)} is not of type {param.type} (default {param.shown})'
    )


def _is_method(cls: type, kind: str) -> bool:
    return "version" in vars(cls) and any(
        base.__name__ == BASES[kind] and base.__module__ == "benchmark.api" for base in cls.__mro__
    )


def _import_file(file: Path) -> Any:
    name = f"uebench_plugin_{file.stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(file):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} cannot be imported; give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
