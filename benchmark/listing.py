"""What ``list`` prints: methods with parameters and citations, protocols, suites. Reads files; imports no method."""

from __future__ import annotations

from dataclasses import fields

from rich.console import Console
from rich.markup import escape

from benchmark.protocol import PROTOCOLS, get_protocol
from benchmark.registry import Registry
from benchmark.suite import read_suite, suite_names


def list_protocols(name: str | None, console: Console) -> None:
    """All protocols, or the one called ``name``, with every setting."""
    for protocol in [get_protocol(name)] if name else PROTOCOLS.values():
        values = ", ".join(
            f"{item.name}={getattr(protocol, item.name)}" for item in fields(protocol) if item.name not in ("name", "summary")
        )
        console.print(f"[bold]{protocol.name}[/bold]  {escape(protocol.summary)}\n    [dim]{escape(values)}[/dim]", highlight=False)


def list_suites(only: str | None, console: Console) -> None:
    """All shipped suites, or one, with their axes and files."""
    for name in [only] if only else suite_names():
        raw, where = read_suite(name)
        axes = ", ".join(f"{key}: {raw[key]}" for key in ("datasets", "attacks", "defenses", "victims", "protocols") if key in raw)
        console.print(
            f"[bold]{name}[/bold]  {escape(str(raw.get('about', '')))}\n    [dim]{escape(axes)}\n    {escape(where)}[/dim]", highlight=False
        )


def list_methods(kind: str, name: str | None, registry: Registry, console: Console) -> None:
    """All methods of a kind, or one, with citation, parameters and defaults as their files write them."""
    cards = registry.cards(kind)
    shown = [registry.card(kind, name)] if name else list(cards.values())
    for card in shown:
        about = [
            text for text in (card.cite, f"norm {card.norm}" if card.norm else "", f"version {card.version}" if card.cite else "") if text
        ]
        about += [f"needs {', '.join(card.needs)}"] if card.needs else []
        console.print(f"[bold]{escape(card.name)}[/bold]  {escape(card.summary)}  [dim]{escape('; '.join(about))}[/dim]", highlight=False)
        for param in card.params.values():
            default = "(required)" if param.required else f"= {param.shown}"
            console.print(f"    {param.name}: {escape(param.type)} {escape(default)}  [dim]{escape(param.doc)}[/dim]", highlight=False)
