"""The order of ready stages: the longest paths, and one slot for the next result."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.planning.plan import make_plan
from benchmark.planning.stage import Stage
from benchmark.planning.suite import load_suite
from benchmark.running.scheduler.graph import Graph
from benchmark.running.scheduler.order import Ready
from benchmark.storage.store import Store
from support.fake_runner import diamond, go, make, runs
from support.simulated_run import recorded, seconds_of, simulate

STAGES = [
    make("poison", "long", cost=1),
    make("purify", "long-u", ("long",), cost=20),
    make("train", "long-t", ("long-u", "long"), cost=5),
    make("poison", "mid", cost=10),
    make("train", "mid-t", ("mid",), cost=1),
    make("poison", "cheap", cost=1),
    make("train", "cheap-t", ("cheap",), cost=1),
]


def ready(store: Store, stages: list[Stage]) -> tuple[Ready, dict[str, Stage]]:
    """The stages without inputs, and all stages by key."""
    found = Ready(Graph.build(stages, store, "missing"))
    for stage in stages:
        if not stage.inputs:
            found.push(stage.key)
    return found, {stage.key: stage for stage in stages}


def test_priorities_are_the_longest_and_the_shortest_cost_to_the_end(store: Store) -> None:
    graph = Graph.build(STAGES, store, "missing")
    assert graph.priority == {
        "long": 26,
        "long-u": 25,
        "long-t": 5,
        "mid": 11,
        "mid-t": 1,
        "cheap": 2,
        "cheap-t": 1,
    }
    # the victim reads the poison too, but only after the purification
    assert graph.nearest == graph.priority
    fork = [make("poison", "p"), make("purify", "u", ("p",), 4), make("train", "a", ("u", "p"))]
    graph = Graph.build([*fork, make("train", "b", ("p",), 3)], store, "missing")
    assert (graph.priority["p"], graph.nearest["p"]) == (6, 4)
    graph = Graph.build(diamond(), store, "missing")
    assert [stage.key for stage in graph.downstream("p1")] == ["u1", "u2", "t1", "t2", "t3"]


def test_every_slot_but_the_first_takes_the_longest_path(store: Store) -> None:
    queue, waiting = ready(store, STAGES)
    taken = []
    for slot in (2, 1, 0):
        key = queue.pop(slot, 3, waiting, has_result=True)
        assert key is not None
        del waiting[key]
        taken.append(key)
    assert taken == ["long", "mid", "cheap"]
    assert queue.pop(0, 3, waiting, has_result=True) is None


@pytest.mark.parametrize(
    ("slots", "has_result", "more", "key"),
    [
        (2, True, 6.6, "cheap"),  # 105 to do, 52.5 a slot: the longest path, 26, is below half
        (2, True, 6.5, "long"),  # 52 a slot: it is half
        (2, False, 9.0, "cheap"),  # the first result comes first in any case
        (1, True, 9.0, "cheap"),  # on one slot, no order takes longer
    ],
)
def test_the_first_slot_takes_the_nearest_result_while_the_longest_path_can_wait(
    store: Store, slots: int, has_result: bool, more: float, key: str
) -> None:
    others = [make("poison", f"more{i}", cost=more) for i in range(10)]
    queue, waiting = ready(store, [*STAGES, *others])
    assert queue.pop(0, slots, waiting, has_result) == key


def test_a_stage_that_comes_back_is_given_again_and_once(store: Store) -> None:
    queue, waiting = ready(store, [make("poison", "p")])
    for slot in (0, 1):  # from either order
        key = queue.pop(slot, 2, waiting, True)
        assert key == "p"
        stage = waiting.pop(key)
        assert queue.pop(1 - slot, 2, waiting, True) is None
        waiting[key] = stage
        queue.push(key)
        assert queue.pop(1 - slot, 2, waiting, True) == "p"
        queue.push(key)


def test_one_slot_finishes_the_cheapest_cells_first(store: Store) -> None:
    go(STAGES, store)
    assert runs(store) == ["cheap", "cheap-t", "mid", "mid-t", "long", "long-u", "long-t"]


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("name", ["quick", "cifar10-lite", "cifar10-attacks", "nightly", "attacks"])
def test_the_first_result_comes_soon_and_the_run_takes_as_long(
    name: str, slots: int, registry: Registry, tmp_path: Path
) -> None:
    """From recorded seconds; the suite ``attacks`` has none, and stands for one long attack."""
    plan = make_plan(load_suite(name, registry), registry, str, "fp32")
    seconds = seconds_of(plan, recorded(name))
    end, cells = simulate(plan.stages, seconds, slots, tmp_path / "none")
    before, _ = simulate(plan.stages, seconds, slots, tmp_path / "none", longest_only=True)
    undefended = plan.cells[0]
    assert (str(undefended.attack), str(undefended.defense)) == ("none", "none")
    assert cells[0][0] <= 1.02 * sum(seconds[key] for key in undefended.stages)
    assert end <= (1.05 if slots > 2 else 1.01) * before
    assert len(cells) == len(plan.cells)
