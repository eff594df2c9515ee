"""Sets that are too small for their protocol are refused before the first stage."""

from __future__ import annotations

from benchmark.catalogue.registry import Registry
from benchmark.planning.plan import Plan, make_plan
from benchmark.planning.sizes import ClassCounts, check_sizes
from benchmark.planning.suite import SuiteError, load_suite

REGISTRY = Registry()


def planned(attacks: str = "none", batch: int = 64) -> Plan:
    axes = {"datasets": ["embedded"], "attacks": [attacks], "defenses": ["none"]}
    suite = load_suite("quick", REGISTRY, axes, [f"protocol.batch_size={batch}"])
    return make_plan(suite, REGISTRY, lambda spec: "f" * 64, "fp32")


def counts(train: int, test: int = 5, classes: int = 4) -> ClassCounts:
    names = "abcdefgh"[:classes]
    return {"train": dict.fromkeys(names, train), "test": dict.fromkeys(names, test)}


def problems(plan: Plan, sizes: ClassCounts, keys: set[str] | None = None) -> tuple[str, ...]:
    (dataset,) = {str(cell.dataset) for cell in plan.cells}
    chosen = {cell.key for cell in plan.cells} if keys is None else keys
    try:
        check_sizes(plan, chosen, {dataset: sizes})
    except SuiteError as error:
        return error.problems
    return ()


def test_a_batch_as_large_as_the_set_is_the_largest() -> None:
    assert problems(planned(batch=64), counts(16)) == ()  # 64 images
    (problem,) = problems(planned(batch=65), counts(16))
    assert problem == (
        "protocol quick has batches of 65 images, but embedded has 64 training images; take more "
        "images, or smaller batches with --set protocol.batch_size=N"
    )


def test_the_surrogates_protocol_counts_too() -> None:
    plan = planned("tap[surrogate=resnet10_w24_s4,surrogate_protocol=std60]", batch=8)
    (problem,) = problems(plan, counts(16))
    assert "the surrogate of tap trains by protocol std60 in batches of 128 images" in problem
    assert problem.endswith("another surrogate_protocol")
    assert problems(plan, counts(32)) == ()


def test_cells_that_are_done_are_not_refused() -> None:
    assert problems(planned(batch=65), counts(16), keys=set()) == ()


def test_classes_without_images_are_named() -> None:
    sizes = {"train": {"a": 70, "b": 0, "c": 1}, "test": {"a": 0, "b": 0, "c": 1}}
    training, test = problems(planned(), sizes)
    assert training == (
        "embedded has 71 training images of 3 classes and none of 1 of them (b); add images, or "
        "leave these classes out"
    )
    assert "1 test images of 3 classes and none of 2 of them (a, b); fewer images than" in test


def test_a_set_that_was_never_read_is_not_judged() -> None:
    plan = planned(batch=4096)
    check_sizes(plan, {cell.key for cell in plan.cells}, {})
