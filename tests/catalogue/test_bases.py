"""Base classes are read too: in the same file, or in a ``_*.py`` beside it.

Whatever the registry cannot read, it reports before a run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec

HEAD = "from benchmark import Defense, defense\n"
SHARED = '''
class Halve(Defense):
    """Divide by a number.

    Parameters:
        by: the divisor.
        more: a second one.
    """
    by: int = 2
    more: int = 1

    def purify(self, data, ctx):
        return data.map(lambda x: x // self.by // self.more)
'''
DEEPER = '''
class Middle(Halve):
    """Do it at test time, too.

    Parameters:
        more: another one.
    """
    by: int = 4

    def at_test(self, x):
        return x / self.by
'''
MINE = '''
@defense(version=1, cite="x")
class Mine({base}):
    """Inherit all of it."""
    third: int = 3
'''


def registry_of(folder: Path, source: str) -> Registry:
    (folder / "mine.py").write_text(source)
    return Registry((folder / "mine.py",))


def test_a_base_of_the_same_file_gives_fields_hooks_and_words(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, HEAD + SHARED + DEEPER + MINE.format(base="Middle"))
    card = registry.card("defense", "mine")
    assert card.purifies
    assert card.trains
    assert {name: (p.default, p.doc) for name, p in card.params.items()} == {
        "by": (4, "the divisor."),
        "more": (1, "another one."),
        "third": (3, ""),
    }
    assert card.summary == "Inherit all of it."
    method = registry.build("defense", registry.resolve("defense", Spec("mine", {"by": 8})))
    assert (method.by, method.more, method.third) == (8, 1, 3)


def test_a_package_has_its_bases_in_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "uebench_halves"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_halve.py").write_text(HEAD + SHARED)
    (package / "_middle.py").write_text("from ._halve import Halve\n" + DEEPER)
    (package / "mine.py").write_text(
        HEAD + "from uebench_halves import _middle as m\n" + MINE.format(base="m.Middle")
    )

    class Entry:
        name, value = "mine", "uebench_halves.mine:Mine"

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "benchmark.catalogue.registry.entry_points",
        lambda group: [Entry] if group == "uebench.defenses" else [],
    )
    card = Registry().card("defense", "mine")
    assert list(card.params) == ["by", "more", "third"]
    assert card.purifies
    assert Registry().load("defense", "mine").by == 4
    (package / "_halve.py").write_text(HEAD + SHARED.replace("by: int = 2", "by: int = 3"))
    assert Registry().card("defense", "mine").content != card.content  # the base decides it too
    for name in [name for name in sys.modules if name.startswith("uebench_halves")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "unseen"),
    [
        ("from elsewhere import Halve\n" + MINE.format(base="Halve"), "by, more, purify"),
        (
            MINE.format(base="Defense") + "\nMine.purify = lambda self, data, ctx: data\n",
            "purify",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_when_the_class_is_loaded(
    source: str, unseen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(HEAD + SHARED)
    monkeypatch.syspath_prepend(tmp_path)
    registry = registry_of(tmp_path, HEAD + source)
    message = f'class Mine of defense "mine" has {unseen}, which planning does not see'
    with pytest.raises(ValueError, match=message):
        registry.load("defense", "mine")
    sys.modules.pop("elsewhere", None)


def test_a_hook_assigned_in_the_class_is_seen(tmp_path: Path) -> None:
    same = "def same(self, data, ctx):\n    return data\n"
    source = HEAD + same + MINE.format(base="Defense") + "    purify = same\n"
    registry = registry_of(tmp_path, source)
    assert registry.card("defense", "mine").purifies
    registry.load("defense", "mine")


def test_classes_that_derive_from_each_other_do_not_hang(tmp_path: Path) -> None:
    circle = "class A(B):\n    x: int = 1\n\nclass B(A):\n    y: int = 2\n"
    card = registry_of(tmp_path, HEAD + circle + MINE.format(base="A")).card("defense", "mine")
    assert set(card.params) == {"x", "y", "third"}
