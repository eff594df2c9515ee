"""Find methods by name without importing them.

``cards`` reads each file's syntax tree: name, parameters with defaults, citation. No file runs
until ``load`` imports it, so that listing and planning are instant and a broken plugin does not
affect the others.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from benchmark.catalogue.card import BASES, Param, content_of, read_card
from benchmark.catalogue.card import Card as Card
from benchmark.catalogue.protocol import get_protocol
from benchmark.catalogue.source import Source
from benchmark.catalogue.spec import Spec, Value, did_you_mean, format_value, parse_value

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = {
    "attack": ROOT / "attacks",
    "defense": ROOT / "defenses",
    "dataset": ROOT / "benchmark" / "datasets",
    "victim": ROOT / "benchmark" / "victims",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
}


@dataclass(frozen=True)
class Broken:
    """A method file that cannot be read, with the reason.

    ``kind`` is ``plugin`` for a file given with ``--plugin`` that cannot be read at all.
    """

    kind: str
    name: str
    file: Path
    reason: str


class Registry:
    """All methods of all kinds.

    They come from the project's folders, installed entry points, and files given with ``--plugin``.
    """

    def __init__(self, plugins: tuple[Path, ...] = ()) -> None:
        self.plugins = plugins
        self.broken: list[Broken] = []
        self._cards: dict[str, dict[str, Card]] = {}

    def cards(self, kind: str) -> Mapping[str, Card]:
        """The card of each method of a kind: ``attack``, ``defense``, ``dataset`` or ``victim``."""
        if kind not in self._cards:
            self._cards[kind] = {}
            for file, name, module in self._files(kind):
                try:
                    plugin = file.parent != FOLDERS[kind]
                    card = read_card(kind, file, name, module, plugin)
                except (SyntaxError, UnicodeDecodeError, OSError) as error:
                    # a plugin's file that cannot be parsed is reported once, not once a kind
                    broken = Broken(kind if module else "plugin", name, file, _unreadable(error))
                    if broken not in self.broken:
                        self.broken.append(broken)
                    continue
                except (ValueError, TypeError, ArithmeticError) as error:
                    self.broken.append(Broken(kind, name, file, str(error)))
                    continue
                if card is None:
                    continue
                if (other := self._cards[kind].get(card.name)) is None:
                    self._cards[kind][card.name] = card
                    continue
                clash = (
                    f'two {kind}s are called "{card.name}": {other.file} and {card.file}; '
                    "rename one"
                )
                if not module:  # the user named the file with --plugin, so it must not be ignored
                    raise ValueError(clash)
                self.broken.append(Broken(kind, name, file, clash))
        return self._cards[kind]

    def note_empty_plugins(self) -> None:
        """Add to ``broken`` the files given with ``--plugin`` that hold no method of any kind."""
        if not self.plugins:
            return  # reading all kinds takes as long as the whole `list` command
        read = {card.file for kind in FOLDERS for card in self.cards(kind).values()}
        read |= {broken.file for broken in self.broken}
        for plugin in self.plugins:
            if (file := plugin.resolve()) not in read:
                reason = (
                    "holds no method; decorate a class with @attack, @defense or @dataset, "
                    "or define build(info) for a victim"
                )
                self.broken.append(Broken("plugin", plugin.stem, file, reason))

    def card(self, kind: str, name: str) -> Card:
        """The card of one method.

        Raises:
            ValueError: if no method has that name; the message names the nearest one, or says why
                the file cannot be read.
        """
        cards = self.cards(kind)
        if name in cards:
            return cards[name]
        for broken in self.broken:
            if broken.name == name and broken.kind in (kind, "plugin"):
                raise ValueError(
                    f'{kind} "{name}" cannot be read from {broken.file}: {broken.reason}'
                )
        raise ValueError(f'unknown {kind} "{name}"{did_you_mean(name, sorted(cards))}')

    def resolve(self, kind: str, spec: Spec, defaults: Mapping[str, Value] | None = None) -> Spec:
        """Complete a spec with every parameter of its method, and check all values.

        ``defaults`` override the method's own defaults. If the spec makes another choice than
        ``defaults``, such as ``norm=l2``, the values of ``defaults`` that depend on this choice
        were meant for the other one. Then the method's own defaults for the spec's choice hold.

        Parameters that the method declares as ``later`` are left out at their default, so that
        results from before these parameters were added keep their keys.

        The parameter ``surrogate`` of an attack names a victim, and ``surrogate_protocol`` names a
        protocol.

        Raises:
            ValueError: for an unknown name or parameter, a value of the wrong type, one that is not
                among the parameter's choices or not in its range, or an unknown surrogate or
                surrogate protocol.
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
                f'{kind} "{spec.name}" needs {", ".join(missing)}; '
                f"write {spec.name}[{missing[0]}=...]"
            )
        full = {
            name: _checked(kind, spec, param, given.get(name, own[name]))
            for name, param in card.params.items()
        }
        if kind == "attack":
            self._check_surrogate(spec.name, full)
        kept = {
            name: value
            for name, value in full.items()
            if name not in card.later or value != card.params[name].default
        }
        return spec.with_params(kept)

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
                        f"attack {name}: {param}={value}: {error} "
                        f"(the parameter of this name is a {what})"
                    ) from error

    def check_purifies(self, name: str) -> None:
        """Refuse a defense that does not change images before training.

        Raises:
            ValueError: if it does not, with those that do; or as ``card`` does.
        """
        if not self.card("defense", name).purifies:
            purifiers = [card.name for card in self.cards("defense").values() if card.purifies]
            raise ValueError(
                f'defense "{name}" changes training, not images; these purify: '
                f"{', '.join(purifiers)}"
            )

    def load(self, kind: str, name: str) -> Any:
        """Import the method's file, and return its class (for a victim, the module).

        Raises:
            ValueError: if the file defines no such class, or if parameters or methods of the class
                differ from its card.
        """
        card = self.card(kind, name)
        if card.content:
            _refuse_edited(card)
        if card.module:
            module = importlib.import_module(card.module)
        else:
            module = _import_file(card)
        if kind == "victim":
            return module
        for value in vars(module).values():
            is_own_class = isinstance(value, type) and value.__module__ == module.__name__
            if is_own_class and _is_method(value, kind):
                _check_as_read(card, value)
                value.name = name
                return value
        raise ValueError(
            f'{card.file} defines no class decorated with @{kind}; "{name}" cannot be used'
        )

    def build(self, kind: str, spec: Spec) -> Any:
        """Make an instance of the method with the parameters of a resolved spec.

        Raises:
            ValueError: if the method refuses its parameters (``__post_init__``); the message names
                the method.
        """
        cls, card = self.load(kind, spec.name), self.card(kind, spec.name)
        # A resolved spec leaves out a ``later`` parameter at its plain default, whatever a choice
        # would bring.
        left_out = {name: card.params[name].default for name in card.later}
        try:
            return cls(**{**left_out, **spec.params})
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
                module_spec = importlib.util.find_spec(module)
                if module_spec is None or module_spec.origin is None:
                    raise ImportError(f'no module "{module}"')
            except Exception as error:
                # find_spec imports the parent of a third-party package, which may raise anything
                self.broken.append(
                    Broken(kind, entry.name, Path(module), f"{type(error).__name__}: {error}")
                )
                continue
            yield Path(module_spec.origin), entry.name, module
        for plugin in self.plugins:
            if not plugin.is_file():
                raise FileNotFoundError(
                    f"--plugin {plugin}: no such file; give the path of one Python file"
                )
            yield plugin.resolve(), plugin.stem, ""


def _unreadable(error: SyntaxError | UnicodeDecodeError | OSError) -> str:
    """Say why a file cannot be read: ``line 7: invalid syntax: def f(:`` for a syntax error."""
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return str(error)
    return f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"


def _checked(kind: str, spec: Spec, param: Param, value: Value) -> Value:
    """Convert a value to the parameter's type, and check it against the parameter's limits."""
    value = _typed(kind, spec.name, param, value)
    if problem := param.limits.problem(param.name, value, param.doc, _written(spec, param, value)):
        raise ValueError(f'{kind} "{spec.name}": {problem}')
    return value


def _written(spec: Spec, param: Param, value: Value) -> str:
    """The value as the user wrote it in the spec, such as ``300/255``; empty if not found."""
    match = re.search(rf"\b{param.name}\s*=\s*([^,\]]+)", spec.label)
    text = match[1].strip() if match else ""
    return text if match and parse_value(text) == value else ""


def _check_as_read(card: Card, cls: type) -> None:
    """Refuse a class that differs from its card, since the run was planned by the card."""
    base = next(
        ancestor
        for ancestor in cls.__mro__
        if (ancestor.__module__, ancestor.__name__) == ("benchmark.api", BASES[card.kind])
    )
    hooks = {name for name, value in vars(base).items() if callable(value) and name[0] != "_"}
    has = {name for name in hooks if getattr(cls, name) is not getattr(base, name)}
    has |= {item.name for item in fields(cls)}
    read = (card.overrides & hooks) | set(card.params)
    if differing := sorted(has ^ read):
        seen = "has" if set(differing) & has else "no longer has"
        raise ValueError(
            f'class {cls.__name__} of {card.kind} "{card.name}" {seen} {", ".join(differing)}, '
            "which planning does not see, since it reads the file without running it; define it in "
            "the class, or in a base class of the same file or of a file _*.py beside it"
        )


def _typed(kind: str, method: str, param: Param, value: Value) -> Value:
    """Convert a value to the parameter's type, so that ``1`` and ``1.0`` give one key."""
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
        f'{kind} "{method}": {param.name}={format_value(value)} is not of type {param.type} '
        f"(default {param.shown})"
    )


def _is_method(cls: type, kind: str) -> bool:
    return "version" in vars(cls) and any(
        base.__name__ == BASES[kind] and base.__module__ == "benchmark.api" for base in cls.__mro__
    )


def _import_file(card: Card) -> Any:
    """Import a plugin, once for each place and content: an edited one is imported anew."""
    digest = hashlib.sha256(f"{card.file} {card.content}".encode()).hexdigest()
    name = f"uebench_plugin_{card.file.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, card.file)
    if spec is None:
        raise ValueError(f"{card.file} cannot be imported; give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled here, since Python's cache of compiled files overlooks quick edits.
        exec(compile(card.file.read_bytes(), str(card.file), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]  # a plugin that failed half-way is no plugin
        raise
    return module


_IMPORTED: dict[Path, str] = {}  # file that Python imports once -> sha256 of what it imported


def _refuse_edited(card: Card) -> None:
    """Refuse a plugin whose files are no longer those of its card, or those that Python holds.

    Raises:
        ValueError: with the file that changed, and what to do.
    """
    package = card.module.rpartition(".")[0]
    if content_of(Source.read(card.file, package)) != card.content:
        raise ValueError(f"{card.file} changed since it was read; run again")
    for file in (*([card.file] if card.module else []), *card.helpers):
        if file not in _IMPORTED:
            _forget_compiled(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if _IMPORTED.setdefault(file, digest) != digest:
            raise ValueError(
                f"{file} changed since this process imported it; start a new process, "
                "or restart the notebook's kernel"
            )


def _forget_compiled(file: Path) -> None:
    """Remove the compiled form of a file that Python has cached.

    Python takes it for that of an edited file of the same size and the same second of change.
    """
    with suppress(OSError, NotImplementedError):
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
