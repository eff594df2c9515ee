"""``plan --explain``: why a cell of a suite would run."""

from __future__ import annotations

from pathlib import Path

from support.command_line import DIM, Call, plugin, run_tiny


def test_plan_explains_a_cell(call: Call, tiny: str, tmp_path: Path) -> None:
    args = ("--attacks", "lsp", "--defenses", "dim", "--plugin", plugin(tmp_path, "dim", DIM))
    before = call("plan", tiny, *args, "--explain", "lsp + dim")
    assert before.code == 0, before.err
    assert before.out.count("would run: nothing like it in the store") == 3

    assert run_tiny(call, tiny, *args).code == 0
    done = call("plan", tiny, *args, "--explain", "lsp + dim")
    assert done.out.splitlines()[1:] == ["  train lsp + dim: cached"]

    longer = ("--set", "protocol.epochs=3", "--seeds", "0,1")
    changed = call("plan", tiny, *args, *longer, "--explain", "lsp+dim, seed 0")
    assert changed.out.splitlines()[1:] == [
        "  poison lsp: cached",
        "  purify lsp with dim: cached",
        "  train lsp + dim, seed 0: would run: unlike the nearest result, lsp + dim, seed 0, in",
        "    protocol.epochs: 1 -> 3",
    ]

    plugin(tmp_path, "dim", DIM.replace("1 / 2", "1 / 3").replace("version=1", "version=2"))
    edited = call("plan", tiny, *args, "--explain", "lsp + dim").out
    assert "    defense.version: 1 -> 2\n" in edited
    assert "    defense.content\n" in edited


def test_a_cell_that_failed_says_so(call: Call, tiny: str, tmp_path: Path) -> None:
    source = DIM.replace("return data.map", "raise RuntimeError('[torn]')\n        return data.map")
    args = ("--attacks", "lsp", "--defenses", "dim", "--plugin", plugin(tmp_path, "dim", source))
    assert run_tiny(call, tiny, *args).code == 1
    told = call("plan", tiny, *args, "--explain", "lsp + dim").out
    assert "failed at its last attempt: purify lsp with dim failed: RuntimeError: [torn]" in told


def test_an_unknown_cell_is_refused(call: Call, tiny: str) -> None:
    result = call("plan", tiny, "--explain", "lsp + greyscale")
    assert result.code != 0
    assert (
        'there is no cell "lsp + greyscale" in tiny; did you mean "lsp + grayscale"' in result.err
    )
