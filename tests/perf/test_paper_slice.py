"""A slice of the papers' scale, at toy size: its cells, its limit of time, its records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmark.catalogue.registry import ROOT, Registry
from benchmark.planning.plan import make_plan
from benchmark.planning.suite import load_suite
from benchmark.storage.store import Store

sys.path.insert(0, str(ROOT / "perf"))
try:
    import paper_slice
finally:
    sys.path.remove(str(ROOT / "perf"))


@pytest.mark.parametrize("attack", paper_slice.ORDER)
def test_a_slice_is_the_published_column(attack: str) -> None:
    registry = Registry()
    suite = load_suite(paper_slice.paper_suite(attack, Path("/images")), registry)
    plan = make_plan(suite, registry, str, "bf16")
    column = paper_slice.Slice(attack, paper_slice.paper_suite(attack, Path()), Path(), ())
    assert {(cell.attack.name, cell.defense.name) for cell in plan.cells} == set(column.cells)
    assert len(plan.cells) == len(column.cells) == 8
    (victim,), (protocol,) = {c.victim for c in plan.cells}, {c.protocol for c in plan.cells}
    assert (victim, protocol.name, protocol.epochs) == ("resnet18", "std60", paper_slice.EPOCHS)
    (dvae,) = {str(c.defense.params) for c in plan.cells if c.defense.name == "dvae"}
    assert dvae == str(registry.resolve("defense", suite.defenses[-1]).params)
    assert "'width': 64" in dvae
    assert f"'epochs': {paper_slice.EPOCHS}" in dvae


def test_the_cells_that_tell_most_come_first() -> None:
    column = paper_slice.Slice("em", {}, Path(), ())
    assert column.cells[:2] == [("em", "none"), ("none", "none")]
    assert column.cells[-2:] == [("em", "dvae"), ("none", "dvae")]


def test_a_slice_that_its_time_cuts_goes_on_and_ends_with_records_to_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def ran(minutes: str) -> dict[str, object]:
        options = ["--toy", "--results", str(tmp_path / "r"), "--data-root", str(tmp_path / "data")]
        argv = ["paper_slice.py", "lsp", *options, "--minutes", minutes]
        monkeypatch.setattr(sys, "argv", argv)
        paper_slice.main()
        last: dict[str, object] = json.loads(capfd.readouterr().out.strip().rpartition("\n")[2])
        return last

    cut = ran("0.35")  # of which the last 20 seconds are kept for the end
    assert len(cut["missing"]) > 0  # type: ignore[arg-type]
    whole = ran("10")
    assert whole["missing"] == []
    assert len(whole["done"]) == 8  # type: ignore[arg-type]
    merged = list(Store(tmp_path / "r" / "records" / "store").records())
    assert len(merged) == 8
    assert sum(file.stat().st_size for file in (tmp_path / "r" / "records").rglob("*")) < 200_000
    assert not list((tmp_path / "r" / "records").rglob("*.safetensors"))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no folder train"):
        paper_slice.unpacked(tmp_path, tmp_path / "images")
