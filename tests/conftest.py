"""Fixtures that tests share: small learnable image sets, a bench for real stages, a command line.

Fixtures build everything in memory, with fixed seeds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmark import Context, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.cli import console as consoles
from benchmark.cli.main import main
from benchmark.contract import toy_set
from benchmark.datasets._open import fingerprint
from benchmark.report.figures import draw
from benchmark.storage.store import Store
from benchmark.training import surrogate, train
from support.command_line import Call, Result
from support.counting_net import build_counting_net, short_protocol
from support.tiny_bench import Bench, save_images

# One thread is faster for small work, and a second one would compete with the other test process.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The project's own methods."""
    return Registry()


@pytest.fixture(scope="session")
def toy() -> ImageSet:
    """60 images of 3 classes, 16x16 pixels, that a small network learns in a few dozen steps."""
    return toy_set(classes=3, per_class=20, size=16)


@pytest.fixture(scope="session")
def toy10() -> ImageSet:
    """60 images of 10 classes, 32x32 pixels."""
    return toy_set()


@pytest.fixture(scope="session")
def faint(toy: ImageSet) -> ImageSet:
    """Classes that differ by little more than the budget."""
    return toy.map(lambda x: (128 + 0.1 * (x.float() - 128)).round().to(torch.uint8))


@pytest.fixture(scope="module")
def small_nets() -> Iterator[None]:
    """Surrogates that train in a fraction of a second, in the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (surrogate, train):
            patch.setattr(module, "build_victim", build_counting_net)
        patch.setattr(surrogate, "get_protocol", short_protocol)
        yield


@pytest.fixture
def compile_latex(tmp_path: Path) -> Callable[[str], bytes]:
    """Make a PDF of a document's body.

    Skip the test where there is no TeX with the packages that the tables use, and say so.
    """
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-extra")
    if (
        subprocess.run(
            ["kpsewhich", "booktabs.sty", "multirow.sty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.count(".sty")
        < 2
    ):
        pytest.skip("pdflatex lacks booktabs or multirow: apt-get install texlive-latex-extra")

    def pdf(body: str) -> bytes:
        text = (
            "\\documentclass{article}\n"
            "\\usepackage[paperwidth=300cm,paperheight=200cm]{geometry}\n"
            "\\usepackage{booktabs,multirow}\n"
            f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
        )
        (tmp_path / "t.tex").write_text(text, encoding="utf-8")
        command = [
            "pdflatex",
            "-halt-on-error",
            "-interaction=nonstopmode",
            "-no-shell-escape",
            "t.tex",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        return (tmp_path / "t.pdf").read_bytes()

    return pdf


@pytest.fixture
def ctx() -> Context:
    return Context(seed_axes=("test", 0))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 training and 10 test images of two classes, 16x16 pixels."""
    folder = tmp_path_factory.mktemp("images")
    save_images(folder, {"train": 10, "test": 5})
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory, images: Path, registry: Registry) -> Path:
    """Return a data root that holds ``images``, already decoded."""
    root = tmp_path_factory.mktemp("data")
    fingerprint(Spec("folder", {"path": str(images), "size": 16}), root, registry)
    return root


@pytest.fixture
def bench(images: Path, data_root: Path, tmp_path: Path) -> Bench:
    """Run real stages on ``images`` in this process, with plugins and a store of the test's own."""
    return Bench(images, data_root, tmp_path, [])


@pytest.fixture
def tiny(tmp_path: Path, images: Path) -> str:
    """A suite of four cells that runs in a second."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"""
about: Two attacks and two defenses.
datasets: "folder[path={images},size=16]"
attacks: [none, lsp]
defenses: [none, grayscale]
victims: resnet10_w16
protocols: quick
protocol_values: {{epochs: 1, batch_size: 8}}
parameters:
  lsp: {{patch: 4, rms: 12/255}}
precision: fp32
""",
        encoding="utf-8",
    )
    return str(file)


@pytest.fixture
def call(
    tmp_path: Path,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """Call the command line in this process; work happens below ``tmp_path``.

    It leaves out the plots, which take longest.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UEBENCH_DATA", str(data_root))
    for plot in ("heatmap", "curves"):
        monkeypatch.setattr(
            f"benchmark.report.figures.{plot}.{plot}", lambda section: {"png": b"-", "pdf": b"-"}
        )
    monkeypatch.setattr(draw, "figures", lambda table, sections: ({}, []))
    for console in (consoles.console, consoles.errors):
        monkeypatch.setattr(console, "width", 300)

    def called(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["run_benchmark.py", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Result(int(end.value.code or 0), captured.out, captured.err)

    return called
