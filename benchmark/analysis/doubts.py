"""Find results that mean nothing, and say why.

A victim that learned nothing, an attack that changes nothing and a purifier that was not fitted
give numbers as any other does. Each doubt names the numbers that it concerns; reports and
comparisons show it beside them. The module is pure: it reads and writes no files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmark.analysis.table import draws

if TYPE_CHECKING:
    import pandas as pd

# An accuracy is near chance up to so far above it: 5 points are too little to rank anything by, and
# with few images guesses alone reach higher. A guesser exceeds 3 standard errors once in 700 times.
NEAR = 0.05
ERRORS = 3.0

# An attack bites if undefended accuracy falls by more than this: what it leaves cannot be told from
# what defenses and seeds change.
BITE = 0.10

# A purified image farther from its input than this shows something else.
FEWEST_DB = 18.0

# A rate may miss its target by this share. Hinges hold rates within 5 % in all shipped records.
SLACK = 0.10

# A fit whose loss fell by more than this share in the last tenth of its steps was not finished.
STEEP = 0.05

SHOWN = 4  # cells that one sentence names

Cell = tuple[str, str]  # attack and defense
Kind = Literal[
    "clean at chance", "no bite", "victim at chance", "rate missed", "far from input", "unfinished"
]


@dataclass(frozen=True)
class Doubt:
    """A reason why some numbers of a group mean nothing.

    Attributes:
        kind: what is wrong.
        cells: the cells whose numbers are in doubt.
        why: one sentence with the measured numbers.
        advice: one sentence that says what to do.
    """

    kind: Kind
    cells: frozenset[Cell]
    why: str
    advice: str

    @property
    def text(self) -> str:
        """Both sentences."""
        return f"{self.why} {self.advice}"


@dataclass(frozen=True)
class Chance:
    """What a guesser reaches.

    Attributes:
        share: its accuracy, 1 / number of classes.
        tested: how many test images the accuracies are measured on.
        trained: how many training images the training accuracies are measured on.
    """

    share: float
    tested: int
    trained: int

    @property
    def test_limit(self) -> float:
        """The highest test accuracy that counts as near chance."""
        return self._limit(self.tested)

    @property
    def train_limit(self) -> float:
        """The highest training accuracy that counts as near chance."""
        return self._limit(self.trained)

    def _limit(self, images: int) -> float:
        error = math.sqrt(self.share * (1 - self.share) / images)
        return self.share + max(NEAR, ERRORS * error)


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one purified set.

    ``measured`` holds the numbers in words. ``severity`` orders the flaws of one kind.
    """

    kind: Kind
    severity: float
    measured: str


def chance(runs: pd.DataFrame) -> Chance | None:
    """The chance of one group of results (rows of the long table).

    Its records name the number of classes as the fact ``data``. It is None if none does, as in
    older records, or if they disagree.
    """
    known = [data for facts in map(json.loads, set(runs["facts"])) if (data := facts.get("data"))]
    if len({data["classes"] for data in known}) != 1:
        return None
    fewest = {name: min(data[name] for data in known) for name in ("test", "train_measured")}
    return Chance(1 / known[0]["classes"], fewest["test"], fewest["train_measured"])


def flaws(facts: Mapping[str, Any]) -> Iterator[Flaw]:
    """Judge a purifier by the facts of its stage, those that its author noted among them.

    A note ``NAME`` with a note ``NAME_target`` is a number that the fit was to bring down to the
    target. A note ``loss_fall``, or one that ends in ``_loss_fall``, is the share by which the loss
    fell in the last tenth of the steps, against the tenth before.
    """
    numbers = {name: value for name, value in facts.items() if isinstance(value, int | float)}
    for name, value in numbers.items():
        target = numbers.get(f"{name}_target")
        if target is not None and value > (1 + SLACK) * target:
            measured = f"{name.replace('_', ' ')} {value:.3g}, target {target:.3g}"
            yield Flaw("rate missed", value / target, measured)
        if (name == "loss_fall" or name.endswith("_loss_fall")) and value > STEEP:
            stage = name.removesuffix("loss_fall").replace("_", " ")
            yield Flaw("unfinished", value, f"{stage}{100 * value:.0f} %")
    psnr = numbers.get("psnr_mean")
    if psnr is not None and psnr < FEWEST_DB:
        yield Flaw("far from input", -psnr, f"{psnr:.1f} dB")


PURIFIER: Mapping[Kind, tuple[str, str]] = {
    "rate missed": (
        f"{{who}} never reached its target, which it exceeds by more than {100 * SLACK:.0f} %: "
        "{where}.",
        "Fit it for longer, or raise the target.",
    ),
    "far from input": (
        f"{{who}} keeps little of its images, whose PSNR to the input is below {FEWEST_DB:.0f} dB: "
        "{where}.",
        "Set it to change less, or fit it for longer.",
    ),
    "unfinished": (
        "{who} was not fitted to the end: in the last tenth of its steps its loss still fell by "
        f"more than {100 * STEEP:.0f} %: {{where}}.",
        "Fit it for longer.",
    ),
}


def of_purified(defense: str, facts: Mapping[str, Any]) -> list[str]:
    """What is in doubt about one purified set, a sentence or two each."""
    texts = []
    for flaw in flaws(facts):
        why, advice = PURIFIER[flaw.kind]
        texts.append(f"{why.format(who=defense, where=flaw.measured)} {advice}")
    return texts


def doubts(runs: pd.DataFrame) -> tuple[Doubt, ...]:
    """Find the doubts in one group of comparable results.

    ``runs`` are the group's rows of ``table.comparable``. Accuracies of several seeds are averaged,
    as the tables show them; a victim or a purifier counts by its worst seed. If clean data teach
    nothing, no attack is said not to bite, since none could.
    """
    done = draws(runs[runs["status"] == "ok"])
    if done.empty:
        return ()
    level = chance(done)
    clean = float(done.loc[done["is_clean"] & done["is_undefended"], "test_acc"].mean())
    found = list(_clean_at_chance(done, clean, level)) or list(_no_bite(done, clean))
    return (*found, *_victims(done, level), *_purifiers(done))


def at_chance(found: Iterable[Doubt]) -> bool:
    """Whether clean data taught the undefended victim nothing, so that nothing can be ranked."""
    return any(doubt.kind == "clean at chance" for doubt in found)


def in_doubt(found: Iterable[Doubt]) -> dict[Cell, tuple[str, ...]]:
    """The sentences on each cell that is in doubt."""
    sentences: dict[Cell, tuple[str, ...]] = {}
    for doubt in found:
        for cell in doubt.cells:
            sentences[cell] = (*sentences.get(cell, ()), doubt.why)
    return sentences


def _clean_at_chance(done: pd.DataFrame, clean: float, level: Chance | None) -> Iterator[Doubt]:
    if level is not None and clean <= level.test_limit:
        yield Doubt(
            "clean at chance",
            frozenset(zip(done["attack"], done["defense"], strict=True)),
            f"Undefended accuracy on clean data is {_percent(clean)}, near chance "
            f"({_percent(level.share)}): this victim learns nothing here, and no number of this "
            "group means anything.",
            "Train it longer, or on more images.",
        )


def _no_bite(done: pd.DataFrame, clean: float) -> Iterator[Doubt]:
    attacked = done[done["is_undefended"] & ~done["is_clean"]]
    weak = {
        str(attack): float(acc)
        for attack, acc in attacked.groupby("attack")["test_acc"].mean().items()
        if clean - acc <= BITE + 1e-9  # which differences of equal decimals may miss by rounding
    }
    if weak:
        rows = done[done["attack"].isin(list(weak))]
        yield Doubt(
            "no bite",
            frozenset(zip(rows["attack"], rows["defense"], strict=True)),
            f"Undefended accuracy stays within {100 * BITE:.0f} points of that on clean data, "
            f"{_percent(clean)}, so that there is nothing to defend against: "
            f"{_listed({attack: _percent(acc) for attack, acc in weak.items()})}.",
            "Give these attacks more steps or a larger budget, or leave them out.",
        )


def _victims(done: pd.DataFrame, level: Chance | None) -> Iterator[Doubt]:
    if level is None:
        return
    lowest = done.groupby(["attack", "defense"])["train_acc"].min()
    poor = lowest[lowest <= level.train_limit].reset_index()
    columns = (poor[name].tolist() for name in ("attack", "defense", "train_acc"))
    cells = {(attack, defense): acc for attack, defense, acc in zip(*columns, strict=True)}
    if cells:
        named = _titles(done)
        shown = {
            f"{named[attack]} + {defense}": _percent(acc)
            for (attack, defense), acc in cells.items()
        }
        yield Doubt(
            "victim at chance",
            frozenset(cells),
            "The victim's accuracy on its own training images is near chance "
            f"({_percent(level.share)}): {_listed(shown)}.",
            "Train it longer, or with another learning rate.",
        )


def _purifiers(done: pd.DataFrame) -> Iterator[Doubt]:
    worst: dict[tuple[str, Kind], dict[str, Flaw]] = {}
    for attack, defense, facts in zip(
        *(done[name] for name in ("attack", "defense", "facts")), strict=True
    ):
        for flaw in flaws(json.loads(facts).get("purify", {})):
            by_attack = worst.setdefault((str(defense), flaw.kind), {})
            by_attack[attack] = max(by_attack.get(attack, flaw), flaw, key=lambda one: one.severity)
    named = _titles(done)
    for (defense, kind), by_attack in sorted(worst.items()):
        shown = {named[attack]: by_attack[attack].measured for attack in sorted(by_attack)}
        why, advice = PURIFIER[kind]
        yield Doubt(
            kind,
            frozenset((attack, defense) for attack in by_attack),
            why.format(who=defense, where=_listed(shown)),
            advice,
        )


def _titles(done: pd.DataFrame) -> dict[str, str]:
    """The attacks as sentences name them."""
    clean = set(done.loc[done["is_clean"], "attack"])
    return {attack: "clean data" if attack in clean else attack for attack in done["attack"]}


def _listed(measured: Mapping[str, str]) -> str:
    """List ``em (86.7 %), lsp (87.0 %)``; beyond ``SHOWN`` only the number of the others."""
    texts = [f"{name} ({text})" for name, text in measured.items()]
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return ", ".join([*texts[:SHOWN], *more])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
