"""What people and programs see of a run: event log, plain lines, live display, time left."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.running.scheduler.display import Live, Plain, open_display
from benchmark.running.scheduler.events import EventLog
from benchmark.running.scheduler.status import Running, Status, duration
from benchmark.storage.store import Store
from support.fake_runner import diamond, go, make


def test_the_event_log(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "events.jsonl"
    go([make("poison", "p", print="a printed line")], store, "local", events=log, slots=("cpu",))
    stages = [
        make("poison", "p"),
        make("train", "t", ("p",), raises=1),
        make("poison", "q", raises=1),
        make("train", "s", ("q",)),
    ]
    log.write_text(log.read_text() + '{"torn')
    go(stages, store, events=log)
    lines = log.read_text().splitlines()
    torn = lines.index('{"torn')
    first, second = (
        [json.loads(line) for line in part] for part in (lines[:torn], lines[torn + 1 :])
    )
    assert first[0]["event"] == "start"
    assert (first[0]["to_run"], first[0]["slots"], first[0]["executor"]) == (1, ["cpu"], "local")
    assert [item["event"] for item in first[-2:]] == ["stage_done", "end"]
    assert {item["line"] for item in first if item["event"] == "log"} == {
        "a printed line",
        "to stderr",
        "threads 1",
    }
    done = first[-2]
    assert (done["key"], done["label"], done["slot"]) == ("p", "poison p", 0)
    assert 0 <= done["seconds"] < 5
    assert done["time"].endswith("+00:00")
    names = [item["event"] for item in second]
    assert names[:2] == ["start", "stage_cached"]
    assert sorted(names[2:-1]) == [
        "blocked",
        "stage_failed",
        "stage_failed",
        "stage_started",
        "stage_started",
    ]
    assert (
        next(item for item in second if item["event"] == "blocked")["error"]
        == "poison q failed: ValueError: the plugin broke"
    )
    assert (second[-1]["event"], second[-1]["failed"], second[-1]["blocked"]) == ("end", 2, 1)


def test_an_event_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="a file stands where a folder should be"):
        EventLog(tmp_path / "file" / "events.jsonl")


def test_an_event_log_on_a_full_disk_stops_the_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullFile(io.FileIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("benchmark.running.scheduler.events.FileIO", FullFile)
    outcome = go(diamond(), store, events=tmp_path / "events.jsonl")
    assert outcome.done == 0
    assert "the disk is full" in outcome.stopped


def test_plain_lines(store: Store) -> None:
    out = io.StringIO()
    stages = [
        make("poison", "p"),
        make("train", "t", ("p",), raises=1),
        make("poison", "q", cost=3),
    ]
    go(stages, store, display=Plain(out), slots=("cpu",))
    lines = out.getvalue().splitlines()
    assert lines[0] == "3 stages: 0 cached, 3 to run on 1 slot"
    assert lines[1] == "start   poison p on cpu"
    assert lines[2].startswith("done    poison p  0.")
    assert lines[2].endswith(" s")
    assert lines[4].startswith("FAILED  train t  0.")
    assert lines[4].endswith(" s: ValueError: the plugin broke")
    assert lines[5].startswith("        at ")
    assert lines[5].endswith(': raise ValueError("the plugin broke")')
    assert lines[6] == f"        full traceback: {store.failure_file('t')}"
    assert lines[-1].startswith("2 done, 0 cached, 1 failed in ")
    assert len(lines) == 10


def test_plain_heartbeat_every_half_minute() -> None:
    now, out = [0.0], io.StringIO()
    display = Plain(out, lambda: now[0])
    status = Status(2, 0, 1, {"q": make("poison", "q")}, clock=lambda: now[0])
    display.open(status, "begin")
    status.running[0] = Running(make("poison", "p"), "cpu", 0.0, 0.5, "epoch 5/10")
    for now[0] in range(0, 70, 2):
        display.tick()
    assert len(out.getvalue().splitlines()) == 3
    assert "0 done, 0 cached, 1 running, 0 failed, 1 waiting; about " in out.getvalue()
    assert "(poison p 50%)" in out.getvalue()


def test_the_live_display_shows_bars_notes_and_counts() -> None:
    out = io.StringIO()
    display = Live(Console(file=out, force_terminal=True, width=140))
    status = Status(3, 1, 2, {"q": make("poison", "q")})
    display.open(status, "3 stages")
    status.running[0] = Running(
        make("train", "em + dvae"), "cpu", status.clock(), 0.3, "epoch 3/10"
    )
    status.running[1] = Running(make("poison", "[lsp]"), "cuda:0", status.clock())
    display.tick()
    display.say("done    purify [bold]x  3.0 s")
    display.close("the end")
    text = out.getvalue()
    for expected in (
        "train em + dvae",
        "epoch 3/10",
        "poison [lsp]",
        "cuda:0",
        "1 cached, 2 running",
        "[bold]x",
        "the end",
    ):
        assert expected in text


def test_auto_is_plain_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert type(open_display("auto")) is Plain
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(open_display("auto")) is Live


def test_the_time_left_is_learnt_from_what_finished() -> None:
    now = [0.0]
    waiting = {key: make("train", key, cost=10) for key in "abc"}
    status = Status(5, 0, 2, waiting, clock=lambda: now[0])
    assert status.seconds_left() is None
    status.learn(make("train", "x", cost=5), 20.0)  # 4 s a unit
    assert status.seconds_left() == pytest.approx(60)  # 3 stages of 40 s on 2 slots
    status.running[0] = Running(make("train", "d", cost=10), "cpu", 0.0)
    now[0] = 10.0
    assert status.seconds_left() == pytest.approx((120 + 30) / 2)
    waiting["p"] = make("poison", "p", cost=1)  # an unknown kind goes by all together
    assert status.seconds_left() == pytest.approx((120 + 30 + 4) / 2)
    status.learn(
        make("poison", "none", cost=0.05), 2.0
    )  # two seconds that every stage takes tell nothing of a unit
    assert status.seconds_left() == pytest.approx((120 + 30 + 4) / 2)
    waiting.clear()
    assert status.seconds_left() == pytest.approx(30), "one stage left keeps one slot busy"
    status.running[0].share = 0.1
    assert status.seconds_left() == pytest.approx(90), (
        "a stage that is slower than others says so itself"
    )
    waiting["a"] = make("train", "a", cost=10)  # (20 + 10) s for (5 + 1) units
    assert status.seconds_left() == pytest.approx(90), "another slot does what waits meanwhile"
    waiting.update({key: make("train", key, cost=10) for key in "bcd"})
    assert status.seconds_left() == pytest.approx((4 * 50 + 90) / 2)
    assert [duration(value) for value in (5, 300, 12000)] == ["5 s", "5 min", "3 h 20 min"]
