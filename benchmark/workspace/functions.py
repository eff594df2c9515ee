"""The functions that Python users call: run, load, leaderboard, compare, poison, purify.

Importing this module loads neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, Unpack

from benchmark.workspace.arguments import (
    Axis,
    Plugins,
    Seeds,
    Settings,
    Suite,
    check_table,
    given_suite,
    python_words,
    read_axes,
    read_paths,
    read_seeds,
    read_settings,
)
from benchmark.workspace.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.comparison import Comparison
    from benchmark.planning.plan import Plan
    from benchmark.running.scheduler.outcome import Outcome
    from benchmark.workspace.arrays import Images

NAMED = {
    axis: f"{axis}="
    for axis in ("attacks", "defenses", "datasets", "victims", "protocols", "seeds")
}


class Where(TypedDict, total=False):
    """Where and how ``run`` and ``compare`` work, with the defaults of the command line.

    Attributes:
        plugins: Python files with methods of your own.
        results: folder of results.
        data_root: folder of data sets.
        download: whether to fetch a data set that is not there.
        device: auto, cpu, cuda or cuda:0.
        slots: workers; 0 for as many as fit.
        slots_per_gpu: workers that share one GPU.
        executor: local (worker processes) or inline (this process).
        policy: missing, force or collect.
        progress: whether to show progress and messages on standard error; without it messages are
            Python warnings.
    """

    plugins: Plugins
    results: str | Path
    data_root: str | Path | None
    download: bool
    device: str
    slots: int
    slots_per_gpu: int
    executor: Literal["local", "inline"]
    policy: Literal["missing", "force", "collect"]
    progress: bool


@dataclass(frozen=True)
class Run:
    """A finished run of a suite.

    Attributes:
        outcome: which stages ran, were in the store already, or failed; ``outcome.failures`` says
            why.
        plan: the cells and stages of the suite.
        folder: the folder of the run's event log and report.
        workspace: the workspace of the run.
    """

    outcome: Outcome
    plan: Plan
    folder: Path
    workspace: Workspace

    @cached_property
    def table(self) -> pd.DataFrame:
        """The long table of the suite's records, one row a trained victim; see ``load``."""
        return self.workspace.table(self.workspace.records_of(self.plan))

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row a defense, best first; see ``leaderboard``."""
        return leaderboard(self.table)


@python_words()
def run(
    suite: Suite = "quick",
    *,
    attacks: Axis = None,
    defenses: Axis = None,
    datasets: Axis = None,
    victims: Axis = None,
    protocols: Axis = None,
    seeds: Seeds = None,
    settings: Settings = (),
    **where: Unpack[Where],
) -> Run:
    """Compute the cells of a suite that are missing.

    Args:
        suite: the name of a shipped suite, the path of a YAML file, or a mapping with its axes, in
            which ``name`` sets the folder of results (``custom`` without it).
        attacks, defenses, datasets, victims, protocols: values that replace the suite's own: specs
            such as ``em[granularity=class]``, as a list or as one text with commas.
        seeds: seeds of the victims: ``2``, ``[0, 1]`` or ``"0-4"``.
        settings: what ``--set`` accepts: ``{"protocol.epochs": 3, "em.max_rounds": 20}``.
        **where: see ``Where``.

    Returns:
        The run. A failed stage raises no error; see ``Run.outcome``.

    Raises:
        ValueError: with all problems of the arguments.
        OSError: if a data set is not there, or the store cannot be written.
        KeyboardInterrupt: if the run was interrupted; what was finished is kept.
    """
    workspace = _workspace(where)
    axes = read_axes(
        attacks=attacks, defenses=defenses, datasets=datasets, victims=victims, protocols=protocols
    )
    axes |= read_seeds(seeds)
    texts = read_settings(settings)
    plan = workspace.plan(workspace.suite(given_suite(suite), axes, texts, NAMED))
    workspace.check(plan)
    outcome = workspace.run_suite(plan)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return Run(outcome, plan, workspace.folder(plan.suite.name), workspace)


@python_words()
def load(
    results: str | Path = "results", suite: Suite | None = None, *, plugins: Plugins = ()
) -> pd.DataFrame:
    """Load the long table: one row a trained victim, including failed ones.

    Accuracies are in [0, 1], ``seconds_train`` is wall time and ``cpu_seconds_train`` that of the
    cores; ``analysis.table.to_table`` explains each column.

    Args:
        results: folder of results.
        suite: if given, only the cells of this suite's last run are loaded.
        plugins: files with attacks of your own, which say what presets these attacks have.

    Raises:
        ValueError: if there are no records, or one is damaged.
    """
    workspace = Workspace(plugins=read_paths(plugins), results=Path(results))
    records = workspace.records(None if suite is None else given_suite(suite))
    return workspace.table(records, mixed=suite is None)


def leaderboard(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the defenses: one row a defense in each group of comparable results, best first.

    A group is a data set, victim, protocol, ratio and preset. Accuracies (``mean`` over attacks,
    ``worst``, ``clean``) are in [0, 1], ``price_points`` in points.
    ``analysis.leaderboard.leaderboard`` explains each column, and which defenses get no rank.

    Args:
        table: the long table, from ``load`` or ``Run.table``.

    Raises:
        TypeError, ValueError: if ``table`` is not such a table.
    """
    from benchmark.analysis.leaderboard import leaderboard as board

    check_table(table)
    return board(table)


@python_words()
def compare(
    ours: str,
    against: str,
    suite: Suite = "quick",
    *,
    attacks: Axis = None,
    datasets: Axis = None,
    victims: Axis = None,
    protocols: Axis = None,
    seeds: Seeds = None,
    settings: Settings = (),
    **where: Unpack[Where],
) -> tuple[Comparison, ...]:
    """Compare a defense with a reference on the attacks of a suite, and run missing cells.

    Args:
        ours, against: specs of the two defenses, such as ``jpeg[quality=30]``.
        suite, attacks, datasets, victims, protocols, seeds, settings, **where: as in ``run``.
            A verdict needs six pairs of attack and seed; ``better`` or ``worse`` needs six seeds.

    Returns:
        One comparison for each data set, victim, protocol, ratio and preset: paired differences
        in points (100 x accuracy), their intervals, and a verdict.

    Raises:
        ValueError: if the two are the same defense, if no cell has a result, or as ``run`` does.
        OSError, KeyboardInterrupt: as ``run`` does.
    """
    from benchmark.workspace.versus import versus

    workspace = _workspace(where)
    axes = read_axes(attacks=attacks, datasets=datasets, victims=victims, protocols=protocols)
    axes |= read_seeds(seeds)
    texts = read_settings(settings)
    pair = versus(workspace, ours, against, given_suite(suite), axes, texts, NAMED)
    workspace.check(pair.plan)
    outcome = workspace.run(pair.plan.stages, pair.folder / "events.jsonl")
    if outcome.interrupted:
        raise KeyboardInterrupt
    records = workspace.records_of(pair.plan)
    if not records:
        raise ValueError("there is nothing to compare: no cell has a result yet")
    return tuple(pair.comparisons(workspace.table(records)))


@python_words()
def poison(
    images: Images,
    labels: Any,
    spec: str,
    *,
    seed: SupportsIndex = 0,
    classes: int | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    plugins: Plugins = (),
    device: str = "auto",
    precision: str = "auto",
) -> Images:
    """Make training images unlearnable.

    Args:
        images: a NumPy array or a tensor, uint8 0..255, (N, C, H, W) or (N, H, W, C) with 1 or 3
            channels; it is not changed.
        labels: N whole numbers from 0.
        spec: an attack, such as ``em[granularity=class]``, or a chain of several joined by ``+``;
            budgets are in [0, 1] units (``eps=8/255``).
        seed: a whole number from 0 on; the same seed gives the same images.
        classes: number of classes; by default the highest label + 1.
        layout: the layout of ``images``, needed only if their shape is ambiguous.
        plugins: Python files with methods of your own.
        device: auto, cpu, cuda or cuda:0.
        precision: auto (the native precision of the hardware), fp32 or bf16.

    Returns:
        The protected images, with the type, layout, order and device of ``images``, and within the
        attack's budget after rounding.

    Raises:
        ValueError: for an unknown method, parameter or layout, shapes or labels that do not fit, a
            negative seed, or an attack that cannot protect such images.
        TypeError: if images are not an array or a tensor of uint8, or if labels or seed are not
            whole numbers.
    """
    from benchmark.workspace.arrays import craft

    return craft(
        "attack",
        images,
        labels,
        spec,
        seed=seed,
        classes=classes,
        layout=layout,
        plugins=read_paths(plugins),
        device=device,
        precision=precision,
    )


@python_words()
def purify(
    images: Images,
    labels: Any,
    spec: str,
    *,
    seed: SupportsIndex = 0,
    classes: int | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    plugins: Plugins = (),
    device: str = "auto",
    precision: str = "auto",
) -> Images:
    """Clean training images that may be protected.

    Args:
        spec: a defense that changes images, such as ``dvae`` or ``jpeg[quality=30]``.
        images, labels, seed, classes, layout, plugins, device, precision: as in ``poison``.

    Returns:
        The cleaned images, with the type, layout, order and device of ``images``.

    Raises:
        ValueError: as ``poison`` does, or for a defense that changes nothing, acts during training
            or drops images.
        TypeError: as ``poison`` does.
    """
    from benchmark.workspace.arrays import craft

    return craft(
        "defense",
        images,
        labels,
        spec,
        seed=seed,
        classes=classes,
        layout=layout,
        plugins=read_paths(plugins),
        device=device,
        precision=precision,
    )


def _workspace(where: Where) -> Workspace:
    from rich.console import Console

    if unknown := set(where) - set(Where.__annotations__):
        raise TypeError(f"unexpected argument {', '.join(sorted(unknown))}")
    data_root = where.get("data_root")
    return Workspace(
        plugins=read_paths(where.get("plugins", ())),
        results=Path(where.get("results", "results")),
        data_root=None if data_root is None else Path(data_root),
        download=where.get("download", False),
        wanted_device=where.get("device", "auto"),
        slots=where.get("slots", 0),
        slots_per_gpu=where.get("slots_per_gpu", 1),
        executor=where.get("executor", "local"),
        policy=where.get("policy", "missing"),
        console=Console(stderr=True) if where.get("progress") else None,
    )
