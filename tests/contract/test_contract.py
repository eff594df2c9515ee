"""Verification of poisons and purified sets, and contract tests of methods that break promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import Attack, Defense, ImageSet
from benchmark.catalogue.registry import Registry
from benchmark.catalogue.spec import Spec
from benchmark.contract import CheckResult, check_method, toy_set
from benchmark.data import to_float
from benchmark.running.verify import verify_poison, verify_purified
from support.sets import random_set
from support.tiny_bench import HEAD


def attack(norm: str, bound: float) -> Attack:
    """An attack of which only the name, norm and budget matter."""

    class Declared(Attack):
        def budget(self, info: Any) -> float:
            return bound

    Declared.declared_norm, Declared.name = norm, "declared"
    return Declared()


def defense(filters: bool = False) -> Defense:
    class Declared(Defense):
        pass

    Declared.filters, Declared.name = filters, "declared"
    return Declared()


@pytest.fixture
def clean() -> ImageSet:
    """Values 20..235, so that small changes are not clipped."""
    data = random_set(40, 4)
    return data.with_x((data.x // 2 + 50).to(torch.uint8))


def add(data: ImageSet, image: int, levels: int, entries: int | None = None) -> ImageSet:
    """``levels`` added to the first entries of one image."""
    x = data.x.clone()
    x[image].view(-1)[:entries] += levels
    return data.with_x(x)


def test_facts_by_hand(clean: ImageSet) -> None:
    x = add(add(clean, 3, 8), 5, 40, 2)
    facts = verify_poison(clean, x, attack("none", 0))
    assert facts["linf"] == pytest.approx(40 / 255)
    assert facts["l2_max"] == pytest.approx(8 * 192**0.5 / 255)  # image 5: 40 * sqrt(2)
    assert facts["l2_mean"] == pytest.approx((8 * 192**0.5 + 40 * 2**0.5) / 255 / 40)
    assert facts["l0_max"] == 64
    assert facts["changed"] == 2 / 40
    assert facts["psnr_mean"] == pytest.approx(
        (30.0690 + 35.9136) / 2, abs=1e-3
    )  # mean squares 64 and 3200 / 192
    assert (
        verify_poison(clean, clean, Registry().build("attack", Spec("none")))["psnr_mean"] is None
    )


@pytest.mark.parametrize(
    ("norm", "bound", "good", "bad"),
    [
        ("linf", 8 / 255, (8, None), (9, None)),
        ("linf", 7.5 / 255, (8, None), (9, None)),  # half a level over is what rounding may add
        ("l2", 10 * 192**0.5 / 255 / 1.009, (10, None), (11, None)),
        ("l2", 10 * 192**0.5 / 255 / 1.011, (9, None), (10, None)),
        ("l0", 3, (60, 3), (60, 4)),
    ],
)
def test_budget_is_held_after_rounding(
    norm: str,
    bound: float,
    good: tuple[int, int | None],
    bad: tuple[int, int | None],
    clean: ImageSet,
) -> None:
    verify_poison(clean, add(clean, 7, *good), attack(norm, bound))
    with pytest.raises(
        ValueError,
        match=r'attack "declared" breaks its budget: image 7 changed by .* 1 of 40 images are over',
    ):
        verify_poison(clean, add(clean, 7, *bad), attack(norm, bound))


def test_an_attack_that_changes_nothing_is_refused(clean: ImageSet) -> None:
    """Its record would show clean accuracy under the attack's name."""
    with pytest.raises(
        ValueError, match=r'attack "\w+" changed no image: what it adds is less than half a level'
    ):
        verify_poison(clean, clean, attack("linf", 8 / 255))


def test_broken_budget_names_worst_image_and_both_norms(clean: ImageSet) -> None:
    with pytest.raises(
        ValueError, match=r"image 9 changed by L-inf 20\.0/255, allowed L-inf 8\.5/255; 2 of 40"
    ):
        verify_poison(clean, add(add(clean, 4, 12), 9, 20), attack("linf", 8 / 255))
    with pytest.raises(ValueError, match="L0 64 pixels, allowed L0 1 pixels"):
        verify_poison(clean, add(clean, 0, 1), attack("l0", 1))
    with pytest.raises(
        ValueError, match=r"budget of 8 in L-inf, expected \[0, 1\] units, for example 8/255"
    ):
        verify_poison(clean, clean, attack("linf", 8.0))
    with pytest.raises(ValueError, match='declares norm "l1", expected linf'):
        verify_poison(clean, clean, attack("l1", 1.0))


@pytest.mark.parametrize(("norm", "bound"), [("linf", 8 / 255), ("l2", 0.5), ("l0", 4)])
def test_images_in_another_order_are_recognised(norm: str, bound: float) -> None:
    data = random_set(40, 2)
    x = data.x.clone()
    x[:, :, 0, 0] = x[:, :, 0, 0] // 2 * 2
    for label in range(2):
        mine = (data.y == label).nonzero().flatten()
        x[mine] = x[mine.roll(1)]  # within the class: the labels still fit
    with pytest.raises(
        ValueError, match=r"the images look reordered: 16 of 16 .* resembles clean image"
    ):
        verify_poison(data, data.with_x(x), attack(norm, bound))


def test_an_image_over_the_budget_is_not_called_reordered(clean: ImageSet) -> None:
    with pytest.raises(ValueError, match="check the step that projects"):
        verify_poison(clean, add(clean, 1, 30), attack("linf", 8 / 255))


def test_labels_count_and_type_of_a_poison(clean: ImageSet) -> None:
    other = ImageSet(clean.x, (clean.y + 1) % 4, clean.info)
    with pytest.raises(ValueError, match=r"changed 40 of 40 labels .*the images look reordered"):
        verify_poison(clean, other, attack("none", 0))
    first = int(clean.y[0])
    other = ImageSet(clean.x, torch.cat([(clean.y[:1] + 1) % 4, clean.y[1:]]), clean.info)
    with pytest.raises(
        ValueError, match=rf"image 0: {first} became {(first + 1) % 4}\); labels must stay"
    ):
        verify_poison(clean, other, attack("none", 0))
    with pytest.raises(ValueError, match="returned 39 images for 40"):
        verify_poison(clean, clean.select(torch.arange(39)), attack("none", 0))
    with pytest.raises(
        TypeError,
        match=r"tensor of torch.float32 \(40, 3, 8, 8\), expected an ImageSet of uint8; "
        r"return data.perturb",
    ):
        verify_poison(clean, to_float(clean.x), attack("none", 0))
    with pytest.raises(TypeError, match="returned NoneType, expected an ImageSet"):
        verify_poison(clean, None, attack("none", 0))


def test_purified_sets(clean: ImageSet) -> None:
    assert verify_purified(clean, add(clean, 0, 9), defense()) == {
        "kept": 1.0,
        "changed": 1 / 40,
        "psnr_mean": pytest.approx(29.0459, abs=1e-3),
    }
    kept = clean.select(torch.tensor([0, 3, 4, 30]))
    assert verify_purified(clean, kept, defense(filters=True)) == {"kept": 0.1}
    with pytest.raises(
        ValueError, match=r'defense "declared" returned 4 of 40 images; .* declare filters=True'
    ):
        verify_purified(clean, kept, defense())
    with pytest.raises(TypeError, match=r"tensor of torch\.float32"):
        verify_purified(clean, to_float(clean.x), defense())
    with pytest.raises(TypeError, match=r"images are torch\.float32, expected uint8"):
        clean.with_x(to_float(clean.x))
    with pytest.raises(ValueError, match="dropped all 40 images"):
        verify_purified(clean, clean.select(torch.arange(0)), defense(filters=True))
    with pytest.raises(ValueError, match="adds no images"):
        verify_purified(clean, clean.select(torch.arange(41) % 40), defense(filters=True))


def test_a_filter_keeps_the_order() -> None:
    data = toy_set(classes=4, per_class=2, size=8)
    with pytest.raises(ValueError, match="labels or order changed"):
        verify_purified(data, data.select(torch.tensor([7, 6, 5])), defense(filters=True))
    with pytest.raises(ValueError, match=r"labels .* look reordered"):
        verify_purified(data, data.select(torch.arange(8).flip(0)), defense())


GOOD_ATTACK = (
    HEAD
    + '''
@attack(version=1, cite="nobody")
class Mine(Attack):
    """Add noise."""
    eps: float = 8 / 255

    def poison(self, data, ctx):
        noise = torch.rand(data.x.shape, generator=ctx.generator("noise"))
        return data.perturb((2 * noise - 1) * self.eps)
'''
)

GOOD_DEFENSE = (
    HEAD
    + '''
@defense(version=1, cite="nobody")
class Mine(Defense):
    """Mix pairs of images and labels."""
    share: float = 0.3

    def augment(self, x, y, ctx):
        order = torch.randperm(len(x), generator=ctx.stream("mix"))
        labels = torch.nn.functional.one_hot(y, 10).float()
        mixed = (1 - self.share) * labels + self.share * labels[order]
        return (1 - self.share) * x + self.share * x[order], mixed
'''
)


def check(kind: str, source: str, folder: Path) -> dict[str, CheckResult]:
    file = folder / "mine.py"
    file.write_text(source, encoding="utf-8")
    return {result.name: result for result in check_method(kind, "mine", Registry(plugins=(file,)))}


def test_a_strangers_good_methods_pass(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "d").mkdir()
    attacked = check("attack", GOOD_ATTACK, tmp_path / "a")
    defended = check("defense", GOOD_DEFENSE, tmp_path / "d")
    assert list(attacked) == ["build", "card", "documentation", "units", "poison", "seed"]
    hooks = ["purify", "augment", "loss", "smoothed labels", "at_test"]
    assert list(defended) == ["build", "card", "documentation", "independence", *hooks, "seed"]
    assert all(result.passed for result in (*attacked.values(), *defended.values()))
    assert "other bytes" in attacked["seed"].detail
    assert "(16, 10)" in defended["augment"].detail


RETURN = "return data.perturb((2 * noise - 1) * self.eps)"


@pytest.mark.parametrize(
    ("test", "old", "new", "message"),
    [
        ("poison", "- 1) *", "- 1) * 2 *", "breaks its budget"),
        (
            "poison",
            RETURN,
            "data.x[0] = 0\n        return data",
            "changes its input images in place",
        ),
        (
            "poison",
            RETURN,
            "data.y[0] = 5\n        return data",
            "changes its input labels in place",
        ),
        (
            "poison",
            ', generator=ctx.generator("noise")',
            "",
            "poison draws from torch's global generator; take generator=ctx.generator",
        ),
        (
            "poison",
            RETURN,
            "import random; random.random()\n        return data",
            r"poison draws from Python's global generator \(random\); take random.Random\(ctx.seed",
        ),
        (
            "poison",
            RETURN,
            "import numpy; numpy.random.rand()\n        return data",
            r"poison draws from NumPy's global generator \(np.random\); take ctx.numpy_stream",
        ),
        ("poison", RETURN, "return data.x / 255 + noise", "returned a tensor of torch.float32"),
        ("poison", RETURN, "return data.select(torch.arange(59))", "returned 59 images for 60"),
        ("poison", RETURN, "return data.with_x(data.x.roll(1, 0))", "images look reordered"),
        ("poison", "(2 * noise - 1)", "(noise / 0)", "delta of image 0 is not finite"),
        ("poison", RETURN, "raise KeyError('lost')", "KeyError: 'lost'"),
        (
            "seed",
            "noise = ",
            "import os; drawn = torch.tensor(list(os.urandom(data.x.numel()))); "
            "noise = drawn.view(data.x.shape) / 255 # ",
            "two runs with one",
        ),
        ("documentation", '    """Add noise."""\n', "", "has no docstring"),
        ("documentation", 'cite="nobody"', 'cite=""', "cite is empty"),
        ("units", "eps: float = 8 / 255", "eps: int = 8", "declare eps: float"),
        ("units", "eps: float = 8 / 255", "eps: float = 8.0", "write 8 / 255, not 8"),
        (
            "card",
            RETURN,
            RETURN + "\n\n\nMine.version = 2",
            "version: the file shows 1 but the class has 2",
        ),
        (
            "build",
            RETURN,
            RETURN + "\n\n    def __post_init__(self):\n        raise ValueError('never')",
            "never",
        ),
        (
            "build",
            "import torch\n",
            "import torch\nimport no_such_module\n",
            "ModuleNotFoundError: .*no_such_module",
        ),
    ],
)
def test_an_attack_that_breaks_a_promise_fails(
    test: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in GOOD_ATTACK
    result = check("attack", GOOD_ATTACK.replace(old, new, 1), tmp_path)[test]
    assert not result.passed
    assert re.search(message, result.detail)


def hook(name: str, *lines: str) -> str:
    arguments = {"loss": "model, x, y, ctx", "at_test": "x", "purify": "data, ctx"}[name]
    return f"\n    def {name}(self, {arguments}):\n" + "".join(
        f"        {line}\n" for line in lines
    )


@pytest.mark.parametrize(
    ("test", "added", "message"),
    [
        ("purify", hook("purify", "return data.x / 255"), "tensor of torch.float32"),
        (
            "purify",
            hook("purify", "return data.with_x(data.x / 255)"),
            "images are torch.float32, expected uint8",
        ),
        (
            "purify",
            hook("purify", "return data.select(torch.arange(50))"),
            "50 of 60 images; .* declare filters=True",
        ),
        (
            "loss",
            hook("loss", "model.eval()", "return super().loss(model, x, y, ctx)"),
            "leaves the model in eval mode",
        ),
        (
            "loss",
            hook(
                "loss", "model.stem.requires_grad_(False)", "return super().loss(model, x, y, ctx)"
            ),
            "leaves weights frozen",
        ),
        (
            "loss",
            hook("loss", "return super().loss(model, x, y, ctx).detach()"),
            "carries no gradient",
        ),
        (
            "loss",
            hook("loss", "return super().loss(model, x, y, ctx) / 0"),
            "loss is inf on a fresh network",
        ),
        (
            "loss",
            hook("loss", "return model(x).mean(1)"),
            r"loss returned torch.float32 \(16,\), expected a tensor of shape \(\)",
        ),
        ("loss", hook("loss", "return 1.5"), "loss returned float"),
        (
            "loss",
            hook("loss", "return 0 * super().loss(model, x, y, ctx)"),
            "all gradients are zero",
        ),
        (
            "loss",
            hook("loss", "return model.head.weight.mean()"),
            "no gradient reaches stem.weight",
        ),
        (
            "loss",
            hook("loss", "x.zero_()", "return super().loss(model, x, y, ctx)"),
            "changes its input x in place",
        ),
        (
            "at_test",
            hook(
                "at_test",
                "import os",
                "drawn = torch.tensor(list(os.urandom(8))).sum() * 1e-6; "
                "return (x + os.urandom(1)[0] / 2550 + drawn).clamp(0, 1)",
            ),
            "other images the second time",
        ),
        (
            "at_test",
            hook("at_test", "return (x - x.mean()).clamp(0, 1)"),
            "treat images one by one",
        ),
        ("at_test", hook("at_test", "return 2 * x - 1"), r"expected \[0, 1\]; clamp them"),
        ("at_test", hook("at_test", "return (255 * x).byte()"), "at_test returned torch.uint8"),
        ("at_test", hook("at_test", "return x[:, :, 1:]"), r"expected \(B, 3, 32, 32\)"),
        ("independence", "\nfrom attacks.em import EM\n", "imports attacks.em"),
        ("independence", "\n    attack_name: str = 'em'\n", "name an attack"),
    ],
)
def test_a_defense_that_breaks_a_promise_fails(
    test: str, added: str, message: str, tmp_path: Path
) -> None:
    result = check("defense", GOOD_DEFENSE + added, tmp_path)[test]
    assert not result.passed
    assert re.search(message, result.detail)


DRAWS = {
    "random.random()": r"Python's global generator \(random\)",
    "np.random.beta(1, 1)": r"NumPy's global generator \(np\.random\)",
    "torch.randperm(2)": "torch's global generator",
    "torch.randn_like(x)": "torch's global generator",
    "torch.manual_seed(0)": "torch's global generator",
}
HOOKS = {
    "augment": ("x, y, ctx", "return x, y"),
    "loss": ("model, x, y, ctx", "return super().loss(model, x, y, ctx)"),
    "at_test": ("x", "return x"),
}


def drawing(name: str, *lines: str) -> str:
    """A defense whose hook ``name`` runs ``lines`` before it does what it would do anyway."""
    arguments, end = HOOKS[name]
    body = "".join(f"        {line}\n" for line in (*lines, end))
    source = GOOD_DEFENSE.partition("    def augment")[0]
    return (
        f"import random\nimport numpy as np\n{source}\n    def {name}(self, {arguments}):\n{body}"
    )


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize(("draw", "generator"), DRAWS.items())
def test_a_hook_that_draws_from_a_global_generator_fails(
    name: str, draw: str, generator: str, tmp_path: Path
) -> None:
    results = check("defense", drawing(name, draw), tmp_path)
    assert re.match(f"{name} draws from {generator}; ", results[name].detail)
    others = [one for one in results.values() if one.name not in (name, "smoothed labels")]
    assert [one.name for one in others if not one.passed] == []


@pytest.mark.parametrize(
    "lines",
    [
        ("if ctx.epoch >= 10:", "    np.random.rand()"),
        ("if 10 <= ctx.epoch < ctx.epochs - 5:", "    np.random.rand()"),
        ("if ctx.epoch == ctx.epochs - 1:", "    np.random.rand()"),
    ],
)
def test_a_draw_late_in_the_training_is_seen(lines: tuple[str, ...], tmp_path: Path) -> None:
    result = check("defense", drawing("augment", *lines), tmp_path)["augment"]
    assert "augment draws from NumPy's global generator" in result.detail


NUMPY_DRAW = "K = float(np.random.beta(1, 1))"
POST_INIT = "    def __post_init__(self):\n        random.random()\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "@defense",
            f"{NUMPY_DRAW}\n\n\n@defense",
            "the import of its file draws from NumPy's global generator (np.random); draw where",
        ),
        (
            "@defense",
            "torch.manual_seed(0)\n\n\n@defense",
            "the import of its file draws from torch's global generator; draw where",
        ),
        (
            "    def augment",
            f"{POST_INIT}\n    def augment",
            "__post_init__ draws from Python's global generator (random); draw where",
        ),
    ],
)
def test_a_draw_before_the_hooks_fails_the_build(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    source = f"import random\nimport numpy as np\n{GOOD_DEFENSE.replace(old, new, 1)}"
    for _ in range(2):  # the second time, the file is imported already
        result = check("defense", source, tmp_path)["build"]
        assert not result.passed
        assert result.detail.startswith(message)


def test_a_value_that_does_not_repeat_from_instance_to_instance_fails(tmp_path: Path) -> None:
    own = "object.__setattr__(self, 'k', float(np.random.default_rng().uniform()))"
    source = GOOD_DEFENSE.replace(
        "    def augment(self, x, y, ctx):\n",
        f"    def __post_init__(self):\n        {own}\n\n"
        "    def augment(self, x, y, ctx):\n        x = self.k * x\n",
    )
    result = check("defense", "import numpy as np\n" + source, tmp_path)["augment"]
    assert "other values the second time with the same seed" in result.detail


@pytest.mark.parametrize(
    "lines",
    [
        ("with torch.random.fork_rng(devices=[]):", "    x = x * torch.rand(())"),
        ("x = x * np.random.default_rng().uniform()",),
        ("import time; x = x * (time.perf_counter_ns() % 1000 / 1000)",),
    ],
)
@pytest.mark.parametrize("name", ["augment", "loss"])
def test_a_draw_that_leaves_no_trace_fails_as_it_does_not_repeat(
    name: str, lines: tuple[str, ...], tmp_path: Path
) -> None:
    result = check("defense", drawing(name, *lines), tmp_path)[name]
    assert f"{name} gives other values the second time with the same seed" in result.detail


@pytest.mark.parametrize(
    "line",
    [
        "x = x * ctx.numpy_stream('share').beta(1, 1)",
        "x = x * torch.rand((), generator=ctx.stream('share'))",
        "x = x * random.Random(ctx.seed('share')).random()",
    ],
)
def test_draws_from_the_context_pass(line: str, tmp_path: Path) -> None:
    results = check("defense", drawing("augment", line), tmp_path)
    assert [one.detail for one in results.values() if not one.passed] == []


def test_layers_that_draw_for_themselves_pass_where_they_are_seeded(tmp_path: Path) -> None:
    lines = (
        "with torch.random.fork_rng(devices=[]):",
        "    torch.default_generator.manual_seed(ctx.seed('dropout'))",
        "    x = torch.nn.functional.dropout(x, 0.1).clamp(0, 1)",
    )
    results = check("defense", drawing("augment", *lines), tmp_path)
    assert [one.detail for one in results.values() if not one.passed] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return x * np.random.rand()", "augment_surrogate draws from NumPy's global generator"),
        ("return x * np.random.default_rng().uniform()", "other values the second time"),
        ("return x[:3]", "augment_surrogate returned 3 images for 16 images"),
        ("return 2 * x", r"expected \[0, 1\]; clamp them"),
        ("return x.mul_(0.5)", "changes its input x in place"),
    ],
)
def test_a_surrogates_augmentation_that_breaks_a_promise_fails(
    body: str, message: str, tmp_path: Path
) -> None:
    hook = f"    def augment_surrogate(self, x, ctx):\n        {body}\n"
    source = f"import numpy as np\n{GOOD_ATTACK}\n{hook}"
    result = check("attack", source, tmp_path)["augment_surrogate"]
    assert not result.passed
    assert re.search(message, result.detail)


@pytest.mark.parametrize(
    ("line", "detail", "passed"),
    [
        ("pass", "accepts the toy set", True),
        ("raise ValueError('too few')", "refuses the toy set: too few", True),
        ("info.nope", "AttributeError: 'DatasetInfo' object has no attribute 'nope'", False),
        ("torch.rand(())", "check draws from torch's global generator", False),
    ],
)
def test_check_of_an_attack_may_refuse_the_toy_set_but_not_crash(
    line: str, detail: str, passed: bool, tmp_path: Path
) -> None:
    source = f"{GOOD_ATTACK}\n    def check(self, info):\n        {line}\n"
    result = check("attack", source, tmp_path)["check"]
    assert (result.passed, result.detail.startswith(detail)) == (passed, True)
    assert result.where.endswith(f": {line}" if "nope" in line else "")


def test_a_crash_shows_the_line_of_the_method(tmp_path: Path) -> None:
    results = check("defense", drawing("augment", "torch.stack([x, y])"), tmp_path)
    crash = results["augment"]
    assert "stack expects each tensor to be equal size" in crash.detail
    assert re.search(r"mine\.py:\d+: torch\.stack\(\[x, y\]\)$", crash.where)
    assert crash.traceback.startswith("Traceback")
    (tmp_path / "other").mkdir()
    refused = check("defense", drawing("augment", "x = x + 5"), tmp_path / "other")["augment"]
    assert (refused.passed, refused.where, refused.traceback) == (False, "", "")


@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise SystemExit", "raise GeneratorExit"])
def test_a_hook_that_ends_the_process_fails_its_test_alone(ending: str, tmp_path: Path) -> None:
    results = check("defense", drawing("augment", f"import sys; {ending}"), tmp_path)
    crash = results["augment"]
    assert re.match("SystemExit|GeneratorExit", crash.detail)
    assert crash.where.endswith(f": import sys; {ending}")
    assert results["at_test"].passed
    assert results["seed"].passed


def test_ctrl_c_ends_the_check(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check("defense", drawing("augment", "raise KeyboardInterrupt"), tmp_path)


def test_a_loss_that_takes_no_smoothed_labels_fails(tmp_path: Path) -> None:
    source = GOOD_DEFENSE.partition("    def augment")[0] + hook(
        "loss", "return -model(x).log_softmax(1)[torch.arange(len(y)), y].mean()"
    )
    results = check("defense", source, tmp_path)
    assert results["loss"].passed
    assert not results["smoothed labels"].passed
    assert "tensors used as indices must be" in results["smoothed labels"].detail


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(1 - self.share) * labels + self.share * labels[order]", "2 * labels", "sum to 1"),
        (
            "(1 - self.share) * labels + self.share * labels[order]",
            "labels[:, :5]",
            r"float \(B, 10\)",
        ),
        (
            "(1 - self.share) * labels + self.share * labels[order]",
            "y + 9",
            r"labels outside 0\.\.9",
        ),
        (
            "(1 - self.share) * labels + self.share * labels[order]",
            "y[1:]",
            "16 images with 15 labels",
        ),
        ("return (1 - self.share) * x", "return 3 * x", r"expected \[0, 1\]; clamp them"),
        (
            "return (1 - self.share) * x",
            "x.mul_(0.5)\n        return x",
            "changes its input x in place",
        ),
        ("return (1 - self.share) * x", "return float('nan') * x", "not finite"),
        (
            "return (1 - self.share) * x",
            "return x[:2] #",
            r"^augment returned a Tensor, expected \(x, y\)",
        ),
        (
            "return (1 - self.share) * x",
            "return x, y, 1 #",
            r"^augment returned a tuple of 3, expected \(x, y\)",
        ),
    ],
)
def test_an_augmentation_that_breaks_a_promise_fails(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in GOOD_DEFENSE
    result = check("defense", GOOD_DEFENSE.replace(old, new, 1), tmp_path)["augment"]
    assert not result.passed
    assert re.search(message, result.detail)


def test_hooks_inherited_from_a_helper_are_seen(tmp_path: Path) -> None:
    source = GOOD_DEFENSE.replace("class Mine(Defense)", "class Mine(Shared)").replace(
        "@defense",
        "class Shared(Defense):\n    def at_test(self, x):\n        return x\n\n\n@defense",
        1,
    )
    result = check("defense", source, tmp_path)["card"]
    assert result.passed
    assert "overrides at_test, augment" in result.detail


def test_needs_have_a_form(tmp_path: Path) -> None:
    source = GOOD_DEFENSE.replace('cite="nobody"', 'cite="nobody", needs=("lots",)')
    result = check("defense", source, tmp_path)["documentation"]
    assert not result.passed
    assert 'needs "lots", expected clean:<count>' in result.detail


def test_a_hook_assigned_from_outside_is_told_when_the_class_is_built(tmp_path: Path) -> None:
    source = GOOD_DEFENSE + "\n\nMine.at_test = lambda self, x: x\n"
    result = check("defense", source, tmp_path)["build"]
    assert not result.passed
    assert 'class Mine of defense "mine" has at_test, which planning does not see' in result.detail


def test_an_attack_and_a_defense_in_one_file_are_told_apart(tmp_path: Path) -> None:
    source = GOOD_ATTACK.replace("class Mine", "class Other") + GOOD_DEFENSE.removeprefix(HEAD)
    for kind in ("attack", "defense"):
        assert check(kind, source, tmp_path)["build"].passed


def test_unknown_names_and_kinds(registry: Registry) -> None:
    with pytest.raises(ValueError, match='unknown defense "grayscal"; did you mean "grayscale"'):
        check_method("defense", "grayscal", registry)
    with pytest.raises(ValueError, match="expected attack or defense"):
        check_method("victim", "resnet18", registry)


def test_checking_leaves_the_global_random_state_alone(registry: Registry) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_method("attack", "lsp", registry)
    assert torch.equal(torch.get_rng_state(), before)


def test_toy_set_is_deterministic_and_balanced() -> None:
    data = toy_set(classes=4, per_class=5, size=16, seed=1)
    assert data.fingerprint == toy_set(classes=4, per_class=5, size=16, seed=1).fingerprint
    assert data.fingerprint != toy_set(classes=4, per_class=5, size=16, seed=2).fingerprint
    assert data.y.bincount().tolist() == [5, 5, 5, 5]


def test_a_plugins_victim_is_a_surrogate_here_too(tmp_path: Path) -> None:
    build = "build_victim(self.surrogate, data.info, ctx.seed('init'), ctx.registry)"
    body = f"        {build}\n        noise ="
    text = GOOD_ATTACK.replace("        noise =", body).replace(
        "eps: float", 'surrogate: str = "slim"\n    eps: float'
    )
    (tmp_path / "mine.py").write_text("from benchmark.training.train import build_victim\n" + text)
    (tmp_path / "slim.py").write_text(
        "from torch import nn\n\ndef build(info):\n    return nn.Flatten()\n"
    )
    results = check_method("attack", "mine", Registry((tmp_path / "mine.py", tmp_path / "slim.py")))
    assert not [f"{result.name}: {result.detail}" for result in results if not result.passed]
