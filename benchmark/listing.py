"""What ``list`` and ``plan`` print: methods, protocols, suites; the cells of a plan. Reads files; imports no method."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.protocol import PROTOCOLS, get_protocol
from benchmark.registry import Registry

if TYPE_CHECKING:
    from benchmark.plan import Cell, Plan
    from benchmark.store import Store


def list_protocols(name: str | None, console: Console) -> None:
    """All protocols, or the one called ``name``, with every setting."""
    for protocol in [get_protocol(name)] if name else PROTOCOLS.values():
        values = ", ".join(
            f"{item.name}={getattr(protocol, item.name)}" for item in fields(protocol) if item.name not in ("name", "summary")
        )
        console.print(f"[bold]{protocol.name}[/bold]  {escape(protocol.summary)}\n    [dim]{escape(values)}[/dim]", highlight=False)


def list_suites(only: str | None, console: Console) -> None:
    """All shipped suites, or one, with their axes and files."""
    from benchmark.suite import read_suite, suite_names  # pydantic, which the other lists do without

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


def print_plan(plan: Plan, store: Store, slots: int, console: Console) -> None:
    """The cells of a plan with their state, what was skipped and why, and what the rest will cost on ``slots`` slots."""
    stages = {stage.key: stage for stage in plan.stages}
    done = {key for key, stage in stages.items() if store.is_done(stage)}
    points = {cell.key: _point(cell) for cell in plan.cells}
    varying = [
        name
        for name in (next(iter(points.values())) if points else ())
        if name in ("attack", "defense") or len({point[name] for point in points.values()}) > 1
    ]
    constant = [text for name, text in next(iter(points.values())).items() if name not in varying] if points else []
    console.print(escape(" / ".join([plan.suite.name, *constant])), style="italic", highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for header in (*varying, "state", "stages to do"):
        table.add_column(header, overflow="fold")
    for cell in plan.cells:
        to_do = [] if cell.key in done else [stages[key].kind for key in cell.stages if key not in done]
        state = "[green]cached[/green]" if cell.key in done else "[red]failed before[/red]" if store.failure(cell.key) else "to do"
        table.add_row(*(escape(points[cell.key][name]) for name in varying), state, ", ".join(to_do) or "-")
    console.print(table)
    for skip in plan.skips:
        console.print(f"skipped {escape(skip.what)}: {escape(skip.reason)}", highlight=False)
    console.print(_cost(plan, store, done, slots), highlight=False)


def _point(cell: Cell) -> dict[str, str]:
    """The axes of a cell as people read them."""
    return {
        "dataset": str(cell.dataset),
        "victim": cell.victim,
        "protocol": cell.protocol.name,
        "ratio": f"ratio {cell.ratio:g}",
        "seed": f"seed {cell.seed}",
        "attack": str(cell.attack),
        "defense": str(cell.defense),
    }


def _cost(plan: Plan, store: Store, done: set[str], slots: int) -> str:
    """What is left to do, in trainings of one undefended victim, and in minutes where this store has timed any."""
    needed = {key for cell in plan.cells if cell.key not in done for key in cell.stages if key not in done}
    left = sum(stage.cost for stage in plan.stages if stage.key in needed)
    unit = min((stage.cost for stage in plan.stages if stage.kind == "train"), default=1.0)
    trained = [stage for stage in plan.stages if stage.kind == "train" and stage.key in done]
    timed = [(store.record(stage.key).seconds["train"], stage.cost) for stage in trained]
    cells = sum(cell.key not in done for cell in plan.cells)
    text = f"{cells} cells to do, about {left / unit:.0f} times one undefended training"
    if timed and left:
        seconds = left * sum(second for second, _ in timed) / sum(cost for _, cost in timed) / slots
        text += f"; about {seconds / 60:.0f} min on {slots} slots, by the timings of this store"
    return text
