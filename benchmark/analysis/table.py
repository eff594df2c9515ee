"""Turn records into one long table.

Accuracies are in [0, 1], and seconds are named after their clock, as in the records. The module is
pure: it reads and writes no files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from benchmark.analysis.naming import as_json, methods_of, one_label, parts_of, told_apart
from benchmark.analysis.reproduce import PROGRAM, command
from benchmark.catalogue.presets import CLEAN, OFFICIAL, preset_of
from benchmark.catalogue.spec import ANCHOR
from benchmark.storage.record import CLOCKS, LATER, Record

if TYPE_CHECKING:
    import pandas as pd

FAMILY = ["dataset", "victim", "protocol"]

GROUP = [*FAMILY, "ratio", "preset"]  # accuracies are compared only within a group

ANY_PRESET = "any"  # of attacks without presets, which are compared with attacks of each preset

CELL = [*GROUP, "attack", "defense"]

RUN = ["seed", "craft_seed"]  # the columns that distinguish the repetitions of a cell

SECONDS_IN_WORDS: Mapping[str, str] = {
    "device_seconds": "device seconds",
    "cpu_seconds": "CPU seconds",
    "seconds": "wall seconds",
}

COLUMNS: Mapping[str, str] = {
    "key": "str",
    "status": "str",
    "dataset": "str",
    "victim": "str",
    "protocol": "str",
    "ratio": "float64",
    "preset": "str",
    "attack": "str",
    "defense": "str",
    "seed": "int64",
    "craft_seed": "int64",
    "needs": "str",
    "is_clean": "bool",
    "is_undefended": "bool",
    "test_acc": "float64",
    "train_acc": "float64",
    "peak_oracle": "float64",
    "curve": "object",
    "seconds_poison": "float64",
    "seconds_purify": "float64",
    "seconds_train": "float64",
    "cpu_seconds_poison": "float64",
    "cpu_seconds_purify": "float64",
    "cpu_seconds_train": "float64",
    "device_seconds_poison": "float64",
    "device_seconds_purify": "float64",
    "device_seconds_train": "float64",
    "peak_memory_mb": "float64",
    "date": "str",
    "error": "str",
    "dataset_spec": "str",
    "protocol_spec": "str",
    "attack_spec": "str",
    "defense_spec": "str",
    "facts": "str",
    "artifacts": "str",
    "environment": "str",
    "command": "str",
    "record": "str",
}

_AS_RECORDED = [item.name for item in fields(Record) if item.name in COLUMNS]
_JSON_COLUMNS = (
    *("dataset_spec", "attack_spec", "defense_spec"),
    *("facts", "artifacts", "environment"),
)


def to_table(
    records: Iterable[Record],
    *,
    without_presets: Collection[str] = (),
    mixed: bool = False,
    program: str = PROGRAM,
) -> pd.DataFrame:
    """Build the long table: one row a record, ordered by cell and seed.

    Columns: ``key``; ``status`` (``ok`` or ``failed``); the labels ``dataset``, ``victim``,
    ``protocol``, ``ratio``, ``preset``, ``attack``, ``defense``; ``seed``, ``craft_seed``;
    ``needs`` (comma-separated, empty for none); ``is_clean`` (the attack is the anchor),
    ``is_undefended`` (the defense is the anchor); ``test_acc`` after the last epoch, ``train_acc``,
    ``peak_oracle`` (best epoch on test data), each in [0, 1] and NaN where failed; ``curve``
    (tuple, one test accuracy an epoch); ``seconds_poison``, ``seconds_purify``, ``seconds_train``,
    and the same with ``cpu_`` and ``device_`` before them; ``peak_memory_mb``; ``date``;
    ``error``; ``*_spec``, ``facts``, ``artifacts`` and ``environment`` as JSON text; ``command``
    (see ``reproduce.command``, empty if unknown); ``record`` (sha256 of the whole record);
    ``superseded`` (there is a newer record of the same cell and seed).

    Settings that were written in several ways (``lsp``, ``lsp[patch=8]``) get the shortest of their
    labels. If one label stands for several settings, those that differ are added to it, for example
    ``dvae (width=8)``, so that results of different settings never share a cell. A record without a
    finite accuracy counts as failed.

    ``preset`` is the preset of the attack: ``official`` for one with the quirks of released code
    (``preset=official``, ``mode=official``), empty for the default, ``any`` for clean data and
    attacks that have no presets. Presets are never averaged with each other.

    Args:
        records: in any order; the last record of a key counts.
        without_presets: registered names of the attacks that have no presets
            (``suite.without_presets``). Other attacks without a recorded preset count as default.
        mixed: whether the records are of several runs, each of which wrote labels such as ``dvae``
            under the parameters of its own suite. Then the settings in which records of one method
            differ are added to labels that do not name them: ``dvae (kd=5.0)``, ``dvae[kd=3.0]``.
        program: the words that start uebench, as in ``reproduce.command``.

    Raises:
        ValueError: if an accuracy is outside [0, 1].
    """
    import pandas as pd

    unique = {record.key: record for record in records}
    commands: dict[str, str] = {}
    rows = [_row(record, commands, without_presets, program) for record in unique.values()]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS))
    for column in ("dataset", "attack", "defense"):
        table[column] = one_label(table[column], table[f"{column}_spec"])
    for column in ("dataset", "protocol"):
        table[column] = told_apart(table[column], table[f"{column}_spec"])
    # each family has its own leaderboard, so settings may differ between families
    for column in ("attack", "defense"):
        for _, part in table.groupby(FAMILY):
            labels, specs = part[column], part[f"{column}_spec"]
            if mixed:
                labels = told_apart(labels, specs, methods_of)
            table.loc[part.index, column] = told_apart(labels, specs)
    table["works"] = table["status"] == "ok"  # a failed record never supersedes a finished one
    table = table.sort_values([*CELL, *RUN, "works", "date", "key"], ignore_index=True).drop(
        columns="works"
    )
    table["superseded"] = table.duplicated([*CELL, *RUN], keep="last")
    return table


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``table`` that count: those that no newer record supersedes.

    Rows of attacks without presets are repeated for each preset that other attacks have at the same
    poison ratio. Rows of clean data are repeated for each poison ratio and preset of their family.
    """
    import pandas as pd

    live = table[~table["superseded"]]
    attacked, clean = live[~live["is_clean"]], live[live["is_clean"]]
    free = attacked["preset"] == ANY_PRESET
    attacked = pd.concat(
        [attacked[~free], _repeated(attacked[free], attacked[~free], ["preset"])], ignore_index=True
    )
    return pd.concat(
        [attacked, _repeated(clean, attacked, ["ratio", "preset"])], ignore_index=True
    ).drop_duplicates([*CELL, *RUN], ignore_index=True)


def cost_clock(rows: pd.DataFrame) -> str:
    """The clock by which to compare the costs of ``rows``: one of ``record.CLOCKS``.

    It is the first by which every row has all its stages that have wall seconds. Seconds of several
    clocks are never compared. Without wall seconds in any row it is ``seconds``.
    """
    timed = rows[["seconds_purify", "seconds_train"]].notna().to_numpy()
    for clock in CLOCKS:
        known = rows[[f"{clock}_purify", f"{clock}_train"]].notna().to_numpy()
        if timed.any() and (known | ~timed).all():
            return clock
    return "seconds"


def purify_and_train(rows: pd.DataFrame, clock: str) -> pd.Series[float]:
    """The seconds of each row to purify and to train, by a clock of ``record.CLOCKS``."""
    return rows[f"{clock}_purify"].fillna(0) + rows[f"{clock}_train"]


def draws(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``comparable`` that are independent draws.

    Runs that do not depend on the craft seed, such as undefended victims of clean data, have the
    same images, curve and accuracy with each craft seed. Of such runs of one victim seed, only the
    first is returned.
    """
    again = rows.duplicated([*CELL, "seed", "artifacts", "curve", "test_acc"]) & (
        rows["status"] == "ok"
    )
    return rows[~again]


def sharing(rows: pd.DataFrame) -> str:
    """Say what a spread over the seeds of ``rows`` covers, in words that follow "over 3 seeds"."""
    seeds = rows[RUN].drop_duplicates()
    if seeds["craft_seed"].nunique() < 2:
        return ", which share poisons and purified sets"
    if seeds["seed"].is_unique and seeds["craft_seed"].is_unique:
        return ", each with poisons and purified sets of its own"
    return ", some of which share poisons and purified sets"


def caveats(rows: pd.DataFrame) -> list[str]:
    """Say what else than the defense differs between ``rows``, a sentence each.

    These are the poisoned images of one attack and seed, and the machines. A poison that is made
    again on another machine, or by a later version, may differ in its last bits, and from there on
    in everything.
    """
    done = rows[rows["status"] == "ok"]  # failed records may have neither images nor a machine
    known = done.assign(poison=[json.loads(text).get("poison") for text in done["artifacts"]])
    poisons = known.groupby(["attack", *RUN])["poison"].nunique()
    sentences = [
        f"On {attack}, not all defenses faced the same poisoned images in {seeds} "
        f"seed{'s' * (seeds != 1)}: made again elsewhere, they differ. Differences there are also "
        "those of the poisons."
        for attack, seeds in poisons[poisons > 1].groupby("attack").size().items()
    ]
    machines = {
        (str(environment.get("device", "")), str(environment.get("threads", "")))
        for environment in map(json.loads, set(done["environment"]))
    }
    if len(machines) > 1:
        sentences.append(
            "The records were made on several kinds of machine: their seconds differ for that "
            "reason, and accuracies may."
        )
    return sentences


def _repeated(rows: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Repeat ``rows`` for each combination of ``columns`` that ``others`` have in the same group.

    Rows of groups without ``others`` stay as they are, once each.
    """
    shared = [name for name in GROUP if name not in columns]
    combinations = others[GROUP].drop_duplicates()
    combinations = combinations.rename(columns={name: f"{name} of others" for name in columns})
    rows = rows.merge(combinations, on=shared, how="left")
    for name in columns:
        own = rows[name].replace(ANY_PRESET, "") if name == "preset" else rows[name]
        rows[name] = rows.pop(f"{name} of others").fillna(own)
    return rows


def _row(
    record: Record, commands: dict[str, str], without_presets: Collection[str], program: str
) -> dict[str, Any]:
    """The row of one record.

    ``commands`` caches each command under everything that it depends on, since the seeds of a cell
    share one command.
    """
    acc = math.nan if record.test_acc is None or record.status != "ok" else float(record.test_acc)
    if acc < 0 or acc > 1:
        raise ValueError(
            f"record {record.key}: test_acc is {acc}, expected a share in [0, 1]; delete the "
            "record and run the cell again"
        )
    ok = math.isfinite(acc)
    texts = {
        name: as_json(value) for name, value in vars(record).items() if isinstance(value, Mapping)
    }
    whole = {
        name: texts.get(name, value)
        for name, value in vars(record).items()
        if value or name not in LATER  # so that a new field changes no hash
    }
    values = {name: getattr(record, name) for name in _AS_RECORDED}
    # the precision that was used, so that fp32 and bf16 never share a cell
    protocol = {**record.protocol_spec, "precision": record.precision}
    row = values | {
        "status": "ok" if ok else "failed",
        "preset": _preset(
            {"name": record.attack, **record.attack_spec}, {ANCHOR, *without_presets}
        ),
        "needs": ", ".join(record.needs),
        "is_clean": record.attack_spec.get("name", record.attack) == ANCHOR,
        "is_undefended": record.defense_spec.get("name", record.defense) == ANCHOR,
        "test_acc": acc,
        "train_acc": math.nan if record.train_acc is None or not ok else float(record.train_acc),
        "peak_oracle": max(record.curve, default=math.nan) if ok else math.nan,
        "curve": tuple(record.curve) if ok else (),
        **{
            f"{clock}_{stage}": float(getattr(record, clock).get(stage, math.nan))
            for clock in CLOCKS
            for stage in ("poison", "purify", "train")
        },
        "error": record.error if record.error or ok else "the record holds no accuracy",
        **{name: texts[name] for name in _JSON_COLUMNS},
        "protocol_spec": as_json(protocol),
        "record": hashlib.sha256(as_json(whole).encode()).hexdigest(),
    }
    specs = ("dataset_spec", "protocol_spec", "attack_spec", "defense_spec")
    deciding = [str(row[name]) for name in (*GROUP, "craft_seed", *specs)]
    settings = "\n".join([*deciding, texts["dataset_params"], *record.sources])
    if settings not in commands:
        commands[settings] = command(record, program)
    return row | {"command": commands[settings]}


def _preset(attack: Mapping[str, Any], without: Collection[str]) -> str:
    """The preset of a recorded attack.

    In a chain of attacks, one with the quirks of released code makes the whole chain official. A
    record without a preset has the default: older records do not name it.
    """
    parts = [(part.get("name"), preset_of(part.get("params", {}))) for part in parts_of(attack)]
    presets = {
        preset or CLEAN for name, preset in parts if preset is not None or name not in without
    }
    if not presets:
        return ANY_PRESET
    return OFFICIAL if OFFICIAL in presets else ""
