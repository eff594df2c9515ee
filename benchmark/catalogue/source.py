"""Read Python source without running it: literals, imports, and base classes."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

OWN = ("benchmark", "uebench", "attacks", "defenses")  # packages that versions speak for
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Source:
    """One Python file.

    Attributes:
        file: its path.
        package: the package that it belongs to, such as ``attacks``; empty for a file given with
            ``--plugin``.
        text: its bytes.
    """

    file: Path
    package: str
    text: bytes

    @classmethod
    def read(cls, file: Path, package: str) -> Source:
        return cls(file, package, file.read_bytes())

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; reading it raises SyntaxError if the file is not Python."""
        return ast.parse(self.text.decode(), filename=str(self.file))

    @cached_property
    def classes(self) -> Mapping[str, ast.ClassDef]:
        """The classes at the top level of the file."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The full names behind the imports of the file: ``{"Literal": "typing.Literal"}``."""
        names: dict[str, str] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                for item in node.names:
                    top = item.name.partition(".")[0]
                    names[item.asname or top] = item.name if item.asname else top
            elif isinstance(node, ast.ImportFrom) and node.level <= 1:
                module = [self.package] if node.level else []
                module += [node.module] if node.module else []
                for item in node.names:
                    names[item.asname or item.name] = ".".join([*module, item.name])
        return names

    @cached_property
    def beside(self) -> tuple[Path, ...]:
        """The files beside this one that it imports, directly or not, without the project's own."""
        found: dict[Path, None] = {}
        waiting = [self]
        while waiting:
            for file in waiting.pop()._imports_beside():
                if file != self.file and file not in found:
                    found[file] = None
                    waiting.append(Source.read(file, self.package))
        return tuple(sorted(found, key=lambda file: (file.name, file)))

    def _imports_beside(self) -> Iterator[Path]:
        try:
            nodes = list(ast.walk(self.tree))
        except (SyntaxError, UnicodeDecodeError):
            return  # the import itself will say so
        package = self.package.split(".") if self.package else []
        for node in nodes:
            targets: list[list[str]] = []
            folder = self.file.parent
            if isinstance(node, ast.Import):
                targets = [item.name.split(".") for item in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = node.module.split(".") if node.module else []
                if node.level > 1:
                    folder = folder.parents[node.level - 2]
                elif not node.level and package and module[: len(package)] == package:
                    module = module[len(package) :]
                elif not node.level and module[0] in OWN:
                    continue
                targets = [[*module, item.name] for item in node.names]
            for parts in targets:
                for count in range(1, len(parts) + 1 if parts[0] not in OWN else 1):
                    base = folder.joinpath(*parts[:count])
                    files = (base.with_name(f"{base.name}.py"), base / "__init__.py")
                    yield from (file for file in files if file.is_file())

    def lineage(self, node: ast.ClassDef) -> Iterator[tuple[Source, ast.ClassDef]]:
        """Yield the classes that ``node`` derives from, and then ``node``.

        Each class overrides those before it. A base class is followed if it is in the same file or
        in a ``_*.py`` beside it. Others, among them Attack and Defense, are left out.
        """
        yield from self._lineage(node, set())

    def _lineage(
        self, node: ast.ClassDef, seen: set[tuple[Path, str]]
    ) -> Iterator[tuple[Source, ast.ClassDef]]:
        if (self.file, node.name) in seen:
            return
        seen.add((self.file, node.name))
        for base in reversed(node.bases):
            name = qualified(base.value if isinstance(base, ast.Subscript) else base, self.names)
            if (ancestor := self._find(name)) is not None:
                source, parent = ancestor
                yield from source._lineage(parent, seen)
        yield self, node

    def _find(self, name: str) -> tuple[Source, ast.ClassDef] | None:
        """The class called ``name``, if it is in this file or in a ``_*.py`` of its package."""
        if name in self.classes:
            return self, self.classes[name]
        module, _, own = name.rpartition(".")
        package, _, stem = module.rpartition(".")
        file = self.file.parent / f"{stem}.py"
        if not self.package or package != self.package or stem[:1] != "_" or not file.is_file():
            return None
        other = Source.read(file, self.package)
        return (other, other.classes[own]) if own in other.classes else None


def qualified(node: ast.expr, names: Mapping[str, str]) -> str:
    """The full name of an expression: ``t.Literal`` is ``typing.Literal`` if ``t`` is typing."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{qualified(node.value, names)}.{node.attr}"
    return ""


def literal(node: ast.expr, where: str) -> Any:
    """The value of a literal or of arithmetic on literals, found without running code.

    Raises:
        ValueError: for any other expression; the message begins with ``where``.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(literal(item, where) for item in node.elts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {
            literal(key, where): literal(item, where)
            for key, item in zip(node.keys, node.values, strict=True)
            if key is not None
        }
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](literal(node.operand, where))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](literal(node.left, where), literal(node.right, where))
    raise ValueError(
        f"{where} = {ast.unparse(node)} is not a literal; "
        "write a number, a text, a bool, or arithmetic such as 8 / 255"
    )
