"""Refuse, before the first stage, plans whose sets are too small to give a meaningful number."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from benchmark.planning.jobs import SurrogateJob
from benchmark.planning.plan import Plan
from benchmark.planning.suite import SuiteError

SHOWN = 5  # classes in a message

ClassCounts = Mapping[str, Mapping[str, int]]  # split -> class -> number of images


def check_sizes(plan: Plan, keys: Collection[str], counts: Mapping[str, ClassCounts]) -> None:
    """Check the sizes of the sets that the cells train on and are tested on.

    A purifier or an attack with batches larger than the set is not refused: it takes the whole set
    as one batch.

    Args:
        plan: the cells and stages.
        keys: the cells that will run.
        counts: the sizes of each data set, by its spec; a set that is missing is not checked.

    Raises:
        SuiteError: with every class without images, and every protocol, of victims and of
            surrogates, whose batch is larger than the training set.
    """
    problems = [
        problem for dataset, splits in counts.items() for problem in _empty(dataset, splits)
    ]
    sizes = {dataset: sum(splits["train"].values()) for dataset, splits in counts.items()}
    cells = [cell for cell in plan.cells if cell.key in keys]
    for cell in cells:
        size = sizes.get(str(cell.dataset), cell.protocol.batch_size)
        if cell.protocol.batch_size > size:
            problems.append(
                f"protocol {cell.protocol.name} has batches of {cell.protocol.batch_size} images, "
                f"but {cell.dataset} has {size} training images; take more images, or smaller "
                "batches with --set protocol.batch_size=N"
            )
    needed = {key for cell in cells for key in cell.stages}
    for stage in plan.stages:
        job = stage.job
        if isinstance(job, SurrogateJob) and stage.key in needed:
            size = sizes.get(str(job.data.spec), job.protocol.batch_size)
            if job.protocol.batch_size > size:
                problems.append(
                    f"the surrogate of {job.attack.name} trains by protocol {job.protocol.name} "
                    f"in batches of {job.protocol.batch_size} images, but {job.data.spec} has "
                    f"{size} training images; take more images, or another surrogate_protocol"
                )
    if problems:
        raise SuiteError(plan.suite.name, list(dict.fromkeys(problems)))


def _empty(dataset: str, splits: ClassCounts) -> Iterator[str]:
    for split, what in (("train", "training"), ("test", "test")):
        classes = splits[split]
        empty = [name for name, count in classes.items() if not count]
        if not empty:
            continue
        total = sum(classes.values())
        which = ", ".join(empty[:SHOWN]) + (", ..." if len(empty) > SHOWN else "")
        fewer = " fewer images than classes;" if total < len(classes) else ""
        yield (
            f"{dataset} has {total} {what} images of {len(classes)} classes and none of "
            f"{len(empty)} of them ({which});{fewer} add images, or leave these classes out"
        )
