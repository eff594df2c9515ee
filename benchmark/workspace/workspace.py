"""The workspace: methods, results, data and machine, set up once for planning and running."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from benchmark.catalogue.spec import split_list
from benchmark.workspace.blame import blamed, check_no_path

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from benchmark.catalogue.registry import Registry
    from benchmark.catalogue.spec import Spec
    from benchmark.planning.plan import Plan
    from benchmark.planning.stage import Stage
    from benchmark.planning.suite import ResolvedSuite
    from benchmark.running.scheduler.outcome import Machine, Outcome
    from benchmark.storage.record import Record
    from benchmark.storage.store import Store


@dataclass(frozen=True)
class Workspace:
    """The place where uebench works. Everything heavy loads on first use.

    Attributes:
        plugins: Python files with methods of the user's own.
        results: folder of results: the store, and one folder a suite.
        data_root: folder of data sets; None for ``$UEBENCH_DATA`` or the user's cache.
        download: whether to fetch a data set that is not there.
        wanted_device: the device to use: ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
        slots: workers; 0 for one a CPU core, or one a GPU share.
        slots_per_gpu: workers that share one GPU.
        executor: ``local`` (worker processes) or ``inline`` (this process, one after another).
        policy: ``missing``, ``force`` or ``collect``, as in ``run_plan``.
        console: gets messages and progress. None shows no progress and makes messages Python
            warnings.
    """

    plugins: tuple[Path, ...] = ()
    results: Path = Path("results")
    data_root: Path | None = None
    download: bool = False
    wanted_device: str = "auto"
    slots: int = 0
    slots_per_gpu: int = 1
    executor: str = "local"
    policy: str = "missing"
    console: Console | None = None

    @cached_property
    def registry(self) -> Registry:
        """All methods, including those of the plugins."""
        from benchmark.catalogue.registry import Registry

        return Registry(self.plugins)

    @cached_property
    def store(self) -> Store:
        """The store below the folder of results."""
        from benchmark.storage.store import Store

        return Store(self.results / "store")

    @cached_property
    def data(self) -> Path:
        """The folder of data sets."""
        from benchmark.running.hardware import default_data_root

        return (self.data_root or default_data_root()).expanduser()

    @cached_property
    def device(self) -> str:
        """The device to run on.

        Raises:
            ValueError: if there is no such device.
        """
        from benchmark.running.hardware import choose_device

        return choose_device(self.wanted_device)

    @property
    def machine(self) -> Machine:
        """What the workers must know of this machine."""
        from benchmark.running.scheduler.outcome import Machine

        plugins = tuple(str(file.resolve()) for file in self.plugins)
        return Machine(device=self.device, data_root=str(self.data), plugins=plugins)

    def tell(self, message: str, lead: str = "") -> None:
        """Show one message to the user; a terminal colours its first words, ``lead``."""
        if self.console is None:
            warnings.warn(f"{lead} {message}".strip(), stacklevel=3)
        else:
            start = f"[yellow]{lead}[/yellow] " if lead else ""
            self.console.print(start + escape(message), highlight=False, soft_wrap=True)

    def tell_broken(self) -> None:
        """Name the plugins and methods that could not be read, and say why."""
        self.registry.note_empty_plugins()
        for broken in self.registry.broken:
            self.tell(f"{broken.kind} {broken.name}: {broken.file}: {broken.reason}", "left out")

    # From a suite to results

    def suite(
        self,
        suite: str | Mapping[str, Any],
        axes: Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
        named: Mapping[str, str] | None = None,
    ) -> ResolvedSuite:
        """Read and check a suite.

        Args:
            suite: the name of a shipped suite, the path of a YAML file, or the axes themselves.
            axes: axes that replace those of the suite.
            settings: ``key=value`` texts, as ``--set`` takes them.
            named: the user's name of an axis, such as ``{"datasets": "--dataset"}``.

        Raises:
            SuiteError: with every problem; problems of ``axes`` have the user's names.
            ValueError: if there is no such suite.
        """
        from benchmark.planning.suite import SuiteError, load_suite

        axes = dict(axes or {})
        shown = {axis: (named or {}).get(axis, axis) for axis in axes}
        try:
            known = self.registry.cards("dataset")
            check_no_path(axes.get("datasets", ()), shown.get("datasets", "datasets"), known)
            for setting in settings:
                axis, _, text = setting.partition("=")
                if axis == "datasets":
                    check_no_path(split_list(text), "--set datasets=", known)
            return load_suite(suite, self.registry, axes, settings)
        except SuiteError as error:
            raise blamed(error, shown, settings) from error

    def plan(self, suite: ResolvedSuite) -> Plan:
        """Plan a suite, and read the data sets that are not cached yet.

        Raises:
            ValueError, OSError: as reading a data set and planning do.
        """
        from benchmark.planning.plan import make_plan
        from benchmark.running.hardware import native_precision

        self.tell_broken()
        return make_plan(suite, self.registry, self._content, native_precision(self.device))

    def check(self, plan: Plan) -> None:
        """Build the methods of the cells that will run, so that invalid values are reported now.

        Raises:
            SuiteError: with every method that refuses its values; if all accept them, with every
                attack that refuses a data set; then with every set that is too small to train on.
        """
        from benchmark.datasets._open import cached_facts
        from benchmark.planning.sizes import check_sizes
        from benchmark.planning.suite import check_sets, check_values

        if self.policy == "collect":
            return
        force = self.policy == "force"
        cells = [cell for cell in plan.cells if force or not self.store.has_record(cell.key)]
        methods = [(kind, getattr(cell, kind)) for cell in cells for kind in ("attack", "defense")]
        if methods:  # torch is loaded only then
            self._import(methods)
        check_values(plan.suite.name, methods, self.registry)
        sets = {str(cell.dataset): cell.dataset for cell in cells}
        facts = {name: cached_facts(spec, self.data, self.registry) for name, spec in sets.items()}
        pairs = ((cell.attack, facts[str(cell.dataset)]) for cell in cells)
        known = [(attack, cached.info) for attack, cached in pairs if cached is not None]
        check_sets(plan.suite.name, known, self.registry)
        counts = {name: cached.class_counts for name, cached in facts.items() if cached is not None}
        check_sizes(plan, {cell.key for cell in cells}, counts)

    def _import(self, methods: Iterable[tuple[str, Spec]]) -> None:
        """Import methods with seeded global generators, since inline stages use these imports."""
        from benchmark.running.global_random import import_seeded

        for kind, name in {(kind, part.name) for kind, spec in methods for part in spec.parts()}:
            with suppress(Exception, SystemExit):  # the stage reports it
                import_seeded(kind, name, self.registry)

    def run(self, stages: Sequence[Stage], events: Path | None = None) -> Outcome:
        """Run the stages whose results are missing, or those that the policy selects.

        Raises:
            ValueError: for an unknown executor or policy.
            OSError: if the store cannot be written.
        """
        from benchmark.running.scheduler.run import run_plan

        return run_plan(
            stages,
            self.store,
            self.machine,
            executor=self.executor,
            slots_per_gpu=self.slots_per_gpu,
            workers=self.slots,
            policy=self.policy,
            display="none" if self.console is None else "auto",
            events=events,
        )

    def run_suite(self, plan: Plan) -> Outcome:
        """Run a whole plan, and keep the list of its cells for later reports.

        Raises:
            ValueError, OSError: as ``run`` does.
        """
        from benchmark.running.last_run import save_selection, selection_of

        folder = self.folder(plan.suite.name)
        outcome = self.run(plan.stages, folder / "events.jsonl")
        save_selection(folder, selection_of(plan))
        return outcome

    def folder(self, name: str) -> Path:
        """The folder of a suite's report, selection and event log."""
        return self.results / name

    def records_of(self, plan: Plan) -> list[Record]:
        """The records in the store of a plan's cells, including failed ones."""
        from benchmark.running.last_run import records_of, selection_of

        return records_of(self.store, selection_of(plan))

    def records(self, suite: str | Mapping[str, Any] | None = None) -> list[Record]:
        """The records of a suite's last run, or all records of the store.

        Raises:
            ValueError: if there are no records, or if the suite has no run here.
        """
        from benchmark.planning.suite import read_suite
        from benchmark.running.last_run import every_record, last_selection, records_of

        if suite is None:
            records = every_record(self.store)
        else:
            name = str(read_suite(suite)[0]["name"])
            selected = last_selection(self.folder(name))
            if selected is None:
                raise ValueError(
                    f"the suite {name} has no run in {self.results}{self.no_folder}; run it "
                    "first, or leave the suite out to get all records"
                )
            records = records_of(self.store, selected)
        if not records:
            raise ValueError(
                f"there are no records in {self.store.root}{self.no_folder}; run a suite first, "
                "or name the folder of a run with --results"
            )
        return records

    @property
    def no_folder(self) -> str:
        """The words `` (there is no such folder)`` if the results folder is missing; else empty."""
        return "" if self.results.is_dir() else " (there is no such folder)"

    def table(
        self, records: Sequence[Record], mixed: bool = False, program: str = ""
    ) -> pd.DataFrame:
        """The long table of these records; ``mixed`` and ``program`` as in ``to_table``."""
        from benchmark.analysis.reproduce import PROGRAM
        from benchmark.analysis.table import to_table
        from benchmark.planning.suite import without_presets

        return to_table(
            records,
            without_presets=without_presets(self.registry),
            mixed=mixed,
            program=program or PROGRAM,
        )

    def _content(self, dataset: Spec) -> str:
        """The fingerprint of a data set, which is read and cached on its first use.

        Raises:
            ValueError, OSError: as reading it does; a ValueError too if its code crashes.
        """
        from benchmark.datasets._open import cached_facts

        try:
            facts = cached_facts(dataset, self.data, self.registry)
            if facts is None:
                self._build(dataset)
                facts = cached_facts(dataset, self.data, self.registry)
                assert facts is not None
        except (ValueError, OSError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: foreign code must not end the process
            raise _crashed(dataset, error, self.plugins) from error
        if left_out := facts.notes.get("left_out"):
            self.tell(f"{dataset}: {left_out} images could not be read and are left out")
        return facts.fingerprint

    def _build(self, dataset: Spec) -> None:
        from rich.progress import Progress

        from benchmark.api import Context
        from benchmark.datasets._open import fingerprint

        shown = self.console is not None
        with Progress(console=self.console, transient=True, disable=not shown) as bar:
            task = bar.add_task(escape(f"{dataset}: reading it for the first time"), total=1.0)

            def progress(share: float, note: str) -> None:
                bar.update(task, completed=share, description=escape(f"{dataset}: {note}"))

            def log(line: str) -> None:
                if shown:
                    self.tell(line)

            ctx = Context(workers=os.cpu_count() or 1, on_progress=progress, on_log=log)
            fingerprint(dataset, self.data, self.registry, ctx, self.download)


def _crashed(dataset: Spec, error: BaseException, plugins: Sequence[Path]) -> ValueError:
    """The error that reports a crash in the code of a data set, in a few lines."""
    from benchmark.running.crash import crash_line, saved_text

    lines = [f'data set "{dataset}" crashed: {type(error).__name__}: {error}'.removesuffix(": ")]
    if where := crash_line(error, plugins):
        lines.append(f"at {where}")
    text = "".join(traceback.format_exception(error))
    lines.append(f"full traceback: {saved_text(text, dataset.name)}")
    return ValueError("\n        ".join(lines))
