"""D-VAE and the plain VAE: the acceptance tests of the method's specification, at toy scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark import Context, DatasetInfo, ImageSet
from benchmark.data import to_float, truncate_uint8
from defenses import dvae as module
from defenses._rate_vae import (
    Encoder,
    decoder,
    fit_network,
    hinge,
    kl_rate,
    rate_weight,
    sample,
    seeded,
)
from defenses.dvae import DVAE, DVAENet, FittedDVAE, Output
from defenses.vae import VAE, VAENet

INFO = DatasetInfo("toy", 10, tuple("abcdefghij"), 3, 32, 32, True)
TINY = DatasetInfo("tiny", 4, tuple("abcd"), 3, 8, 8, True)
SMALL = DVAE(width=4, latent=4, epochs=1, batch_size=16)


def images(count: int = 48, seed: int = 0, info: DatasetInfo = INFO) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, 3, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(smooth, info.height, mode="bilinear")
    return ImageSet((x * 255).to(torch.uint8), torch.arange(count) % info.num_classes, info)


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def applied(fitted: FittedDVAE, data: ImageSet, ctx: Context) -> ImageSet:
    """Both stages applied to images, one after the other."""
    middle, _ = fitted.remove(data, ctx)
    return fitted.reconstruct(middle, ctx)[0]


class TestNetwork:
    """Acceptance test 1: shapes and parameter counts."""

    def test_parameters_of_the_published_cifar_network(self) -> None:
        net = DVAE().network(INFO)
        assert count(net) == 1_181_382
        assert count(net.encoder.stem) == 379_968
        assert (
            count(net.encoder.mean) + count(net.encoder.log_var) + count(net.encoder.post) == 98_944
        )
        assert count(net.image_decoder) == count(net.perturbation_decoder) == 187_395
        assert count(net.embedding) == 327_680
        assert count(DVAE(spatial=False).network(INFO).embedding) == 128 * 10

    def test_shapes_at_32_pixels(self) -> None:
        net = DVAE().network(INFO)
        features, mean, log_var = net.encoder(torch.rand(2, 3, 32, 32))
        assert features.shape == (2, 128, 16, 16)
        assert mean.shape == log_var.shape == (2, 256, 16, 16)
        out = net(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), generator())
        assert out.image.shape == out.perturbation.shape == (2, 3, 32, 32)

    def test_shapes_of_the_deep_network(self) -> None:
        encoder, decode = Encoder(3, 8, 4, deep=True), decoder(64, 8, 3, deep=True)
        features, mean, _ = encoder(torch.rand(2, 3, 224, 224))
        assert features.shape == (2, 64, 28, 28)
        assert mean.shape == (2, 4, 28, 28)
        assert decode(torch.rand(2, 64, 28, 28)).shape == (2, 3, 224, 224)

    @pytest.mark.parametrize("form", ["code", "stem", "none"])
    @pytest.mark.parametrize("spatial", [True, False])
    def test_every_form_of_the_perturbation_decoder_runs(self, form: str, spatial: bool) -> None:
        net = DVAE(width=4, latent=4, decoder_input=form, spatial=spatial).network(INFO)
        assert net(
            torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), generator()
        ).perturbation.shape == (2, 3, 32, 32)

    def test_odd_sizes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="31 x 31; dvae needs sides that 2 divides"):
            DVAE().network(DatasetInfo("odd", 2, ("a", "b"), 3, 31, 31, True))


class TestRate:
    """Acceptance tests 2 and 3."""

    def test_kl_by_hand(self) -> None:
        zero = torch.zeros(2, 3, 4, 4)
        assert kl_rate(zero, zero) == 0
        one = zero.clone()
        one[:, 0] = 1
        assert kl_rate(one, zero) == pytest.approx(0.5)
        assert kl_rate(one.repeat(3, 1, 2, 2), zero.repeat(3, 1, 2, 2)) == pytest.approx(0.5)

    def test_no_gradient_below_the_target(self) -> None:
        mean = torch.full((1, 1, 1, 1), 0.1, requires_grad=True)
        hinge(kl_rate(mean, torch.zeros(1, 1, 1, 1)), 1.0).backward()
        assert mean.grad is not None
        assert mean.grad.abs().max() == 0
        high = torch.full((1, 1, 1, 1), 3.0, requires_grad=True)
        hinge(kl_rate(high, torch.zeros(1, 1, 1, 1)), 1.0).backward()
        assert high.grad is not None
        assert high.grad.item() == pytest.approx(3.0)

    def test_weight_of_the_rate(self) -> None:
        assert (rate_weight(1.0), rate_weight(3.0), rate_weight(0.5)) == (0.01, 0.01, 0.5)

    def test_noise_is_the_stated_draw(self) -> None:
        mean, log_var = torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 2.0)
        noise = torch.randn(2, 4, 4, 3, generator=generator(5)).permute(0, 3, 1, 2)
        assert torch.allclose(
            sample(mean, log_var, generator(5)), 2 + torch.exp(torch.tensor(1.0)) * noise
        )

    def test_penalty_on_the_perturbation_starts_late_and_only_above_its_bound(self) -> None:
        x = torch.full((2, 3, 32, 32), 0.5)
        for size, epoch, expected in (
            (0.1, 10, 0.0),
            (0.1, 11, 2 * 0.1 / x.numel()),
            (0.01, 11, 0.0),
        ):
            p = torch.full_like(x, size, requires_grad=True)
            out = module.Output(
                x - size, p, torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
            )  # reconstructs exactly
            loss, _ = DVAE().loss_terms(out, x, 1.0, epoch)
            (gradient,) = torch.autograd.grad(loss, p)
            assert gradient.max().item() == pytest.approx(expected, abs=1e-7)

    def test_loss_by_hand(self) -> None:
        x, zero = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 1, 1, 1)
        out = module.Output(
            torch.full_like(x, 0.9), torch.full_like(x, 0.2), torch.full_like(zero, 2.0), zero
        )
        loss, terms = DVAE().loss_terms(out, x, 1.0, 11)
        # the clamp keeps 0.9 + 0.2 at 1; KL is 2; the mean square of the perturbation is 0.04
        assert loss.item() == pytest.approx(0.4**2 + 0.5**2 + 0.01 * 2.0 + 0.04)
        assert terms["kl"].item() == pytest.approx(2.0)


class TestDisentangling:
    """Acceptance test 5."""

    def test_labels_move_the_perturbation_and_not_the_image(self) -> None:
        net = SMALL.network(INFO).eval()
        x = torch.rand(4, 3, 32, 32)
        one, other = (net(x, torch.full((4,), label), generator(1)) for label in (0, 1))
        assert torch.equal(one.image, other.image)
        assert not torch.allclose(one.perturbation, other.perturbation)

    def test_the_second_reconstruction_trains_the_encoder(self) -> None:
        net = SMALL.network(INFO)
        x, y = torch.rand(4, 3, 32, 32), torch.arange(4)

        def gradient(detach: bool) -> Tensor:
            out = net(x, y, generator(1))
            image = out.image.detach() if detach else out.image
            loss = ((image + out.perturbation).clamp(0, 1) - x).square().mean() + (
                out.image - x
            ).square().mean()
            return torch.autograd.grad(loss, net.encoder.mean.weight)[0]

        assert not torch.allclose(gradient(True), gradient(False))


class Fixed(DVAENet):
    """Stand in for a fitted network: a constant perturbation, and half the input as output."""

    def __init__(self, level: float) -> None:
        torch.nn.Module.__init__(self)
        self.level = level
        self.seen: list[Tensor] = []

    def image(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        self.seen.append(x.clone())
        return x / 2

    def perturbation(self, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.full_like(x, self.level)


class TestPipeline:
    """Acceptance tests 6 to 9."""

    def test_stage_1_subtracts_and_truncates(self) -> None:
        data = images()
        out, found = FittedDVAE(Fixed(0.05), Fixed(0.0), "trunc").remove(data, Context())
        assert torch.equal(out.x, truncate_uint8(to_float(data.x) - 0.05))
        assert torch.allclose(found.float(), torch.tensor(0.05), atol=1e-4)

    def test_no_perturbation_leaves_every_byte(self) -> None:
        data = images()
        out, _ = FittedDVAE(Fixed(0.0), Fixed(0.0), "trunc").remove(data, Context())
        assert torch.equal(out.x, data.x)

    def test_result_reconstructs_the_image_less_its_perturbation(self) -> None:
        data, stage2 = images(16), Fixed(0.1)
        out, _ = FittedDVAE(Fixed(0.0), stage2, "trunc").reconstruct(data, Context())
        cleaned = (to_float(data.x) - 0.1).clamp(0, 1)
        assert torch.equal(stage2.seen[0], cleaned)
        assert torch.equal(out.x, truncate_uint8(cleaned / 2))

    def test_half_a_forward_pass_gives_its_half(self) -> None:
        net = SMALL.network(INFO).eval()
        x, y = to_float(images(8).x), images(8).y
        with torch.no_grad():
            out = net(x, y, generator())
            assert torch.equal(net.image(x, generator()), out.image)
            assert torch.equal(net.perturbation(x, y, generator()), out.perturbation)

    def test_purifying_is_fitting_and_applying(self) -> None:
        data, ctx = images(32), Context()
        purified = SMALL.purify(data, ctx)
        fitted, middle, first = SMALL.fit(data, Context())
        final, second = fitted.reconstruct(middle, Context())
        assert torch.equal(purified.x, final.x)
        assert torch.equal(ctx.kept["perturbation"]["stage1"], first)
        assert torch.equal(ctx.kept["perturbation"]["stage2"], second)

    def test_stage_2_is_new_and_reads_the_output_of_stage_1(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[tuple[ImageSet, torch.nn.Module]] = []

        def spy(
            net: torch.nn.Module, data: ImageSet, *args: Any, **kwargs: Any
        ) -> dict[str, float]:
            read.append((data, net))
            return {}

        monkeypatch.setattr(module, "fit_network", spy)
        data, ctx = images(16), Context()
        fitted, middle, _ = SMALL.fit(data, ctx)
        assert torch.equal(fitted.remove(data, ctx)[0].x, middle.x)
        assert torch.equal(read[0][0].x, data.x)
        assert torch.equal(read[1][0].x, middle.x)
        weights = [net.state_dict()["encoder.mean.weight"] for _, net in read]
        assert not torch.equal(*weights)

    def test_purifying_is_seeded_and_moves_no_buffer(self) -> None:
        data = images()
        fitted = SMALL.fit(data, Context())[0]
        before = {key: value.clone() for key, value in fitted.stage1.state_dict().items()}
        once, again = (applied(fitted, data, Context()) for _ in range(2))
        other = applied(fitted, data, Context(seed_axes=("other",)))
        assert torch.equal(once.x, again.x)
        assert not torch.equal(once.x, other.x)
        assert torch.equal(once.y, data.y)
        assert all(
            torch.equal(value, before[key]) for key, value in fitted.stage1.state_dict().items()
        )

    def test_the_same_seed_fits_the_same_bytes(self) -> None:
        data = images(32)
        assert torch.equal(SMALL.purify(data, Context()).x, SMALL.purify(data, Context()).x)

    def test_training_reads_the_stored_images_as_they_are(self) -> None:
        data, seen = images(32), []
        net = seeded(lambda: VAENet(INFO, 4, 4, 4), 0)

        def loss(x: Tensor, y: Tensor, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append((x.clone(), y.clone()))
            return net(x, generator())[0].square().mean(), {}

        fit_network(
            net, data, loss, Context(), stage="t", epochs=1, batch_size=16, lr=0.01, clip=5.0
        )
        stored = {
            (to_float(image).numpy().tobytes(), int(label))
            for image, label in zip(data.x, data.y, strict=True)
        }
        assert {
            (image.contiguous().numpy().tobytes(), int(label))
            for x, y in seen
            for image, label in zip(x, y, strict=True)
        } == stored


@dataclass(frozen=True)
class Fitted:
    """A stage 1 fitted to a toy set with a class-wise change, and what it found."""

    delta: Tensor
    found: Tensor
    notes: dict[str, Any]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    ctx, clean = Context(), images(128, info=TINY)
    patterns = (
        torch.randn(4, 3, 2, 2, generator=generator(3))
        .sign()
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
        * 0.06
    )
    poisoned = clean.perturb(patterns[clean.y])
    settings = DVAE(width=8, latent=4, hinge_from=8, epochs=40, batch_size=16, target=1.0)
    stage1 = settings._fit_stage(poisoned, settings.target, "stage 1", ctx)
    _, found = FittedDVAE(stage1, stage1, "trunc").remove(poisoned, ctx)
    return Fitted(patterns[clean.y], found, ctx.notes)


def test_rate_settles_on_its_target_and_the_perturbation_under_its_bound(fitted: Fitted) -> None:
    """Acceptance test 4."""
    assert 0.95 <= fitted.notes["stage1_kl"] <= 1.15
    assert fitted.notes["stage1_p"] <= 0.0022


def test_perturbation_of_a_class_wise_poison_is_found(fitted: Fitted) -> None:
    """Acceptance test 10: the perturbation that stage 1 finds points along the true change.

    That it also poisons clean images cannot be seen on toys: perf/disentangling.py --train measures
    it, and docs/results.md has the numbers.
    """

    def cosine(a: Tensor, b: Tensor) -> float:
        return (
            torch.nn.functional.cosine_similarity(a.flatten(1).float(), b.flatten(1).float())
            .mean()
            .item()
        )

    assert cosine(fitted.found, fitted.delta) > 0.3
    assert abs(cosine(torch.randn(fitted.delta.shape, generator=generator(4)), fitted.delta)) < 0.05


def test_annealing_by_step_and_by_epoch() -> None:
    """In two epochs of two steps the rate is lr/2 (1 + cos(pi t)).

    By epoch, t = 0, 0, 1/2, 1/2; by step, t = 0, 1/4, 1/2, 3/4.
    """
    rates: dict[str, list[float]] = {}
    for anneal in ("epoch", "step"):
        optimizer = Recorder([])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim, "Adam", optimizer.make)
            net = seeded(lambda: VAENet(INFO, 4, 4, 4), 0)

            def loss(
                x: Tensor, y: Tensor, epoch: int, net: VAENet = net
            ) -> tuple[Tensor, dict[str, Tensor]]:
                return net(x, generator())[0].square().mean(), {}

            fit_network(
                net,
                images(32),
                loss,
                Context(),
                stage="t",
                epochs=2,
                batch_size=16,
                lr=0.01,
                clip=5.0,
                anneal=anneal,
            )
        rates[anneal] = optimizer.rates
    assert rates["epoch"] == pytest.approx([0.01, 0.01, 0.005, 0.005])
    assert rates["step"] == pytest.approx([0.01, 0.0085355, 0.005, 0.0014645], rel=1e-4)


@dataclass
class Recorder:
    """Stands for Adam and notes the learning rate of each step."""

    rates: list[float]

    def make(self, weights: Any, lr: float, **options: Any) -> torch.optim.Optimizer:
        rates = self.rates

        class Noting(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:
                rates.append(float(self.param_groups[0]["lr"]))

        return Noting(list(weights), lr)


def test_weights_of_the_terms_are_parameters() -> None:
    x = torch.zeros(1, 3, 8, 8)
    out = Output(
        x, x + 0.5, torch.full((1, 4, 4, 4), 2.0), torch.zeros(1, 4, 4, 4)
    )  # rate 4 * 2.0 = 8 nats, mean square 0.25
    plain, heavy = DVAE(hinge_from=0), DVAE(hinge_from=0, rate_weight=0.02, hinge_weight=3.0)
    base = plain.loss_terms(out, x, 1.0, 0)[0].item()
    assert base == pytest.approx(0.25 + 0.01 * 8 + 0.25)
    assert heavy.loss_terms(out, x, 1.0, 0)[0].item() == pytest.approx(0.25 + 0.02 * 8 + 3 * 0.25)
    with pytest.raises(ValueError, match="rate_weight=-1, expected at least 0"):
        DVAE(rate_weight=-1.0)
    with pytest.raises(ValueError, match='anneal="batch", expected epoch or step'):
        DVAE(anneal="batch")


def test_the_mean_code_needs_no_draw() -> None:
    data, settings = images(32), replace(SMALL, sample_code=False)
    fitted = settings.fit(data, Context())[0]
    one, other = (applied(fitted, data, Context(seed_axes=(name,))) for name in "ab")
    assert torch.equal(one.x, other.x)


def test_the_kept_model_holds_both_stages() -> None:
    data, ctx = images(32), Context()
    purified = SMALL.purify(data, ctx)
    assert ctx.kept["perturbation"]["stage1"].shape == data.x.shape
    nets = []
    for stage in ("stage1", "stage2"):
        kept = ctx.kept["model"].items()
        net = SMALL.network(INFO)
        net.load_state_dict({key[7:]: value for key, value in kept if key.startswith(stage)})
        nets.append(net)
    fitted = FittedDVAE(*nets, SMALL.rounding)
    assert torch.equal(applied(fitted, data, ctx).x, purified.x)
    assert applied(fitted, images(8, seed=9), ctx).x.shape == (8, 3, 32, 32)


def test_a_diverging_fit_says_so() -> None:
    net = seeded(lambda: VAENet(INFO, 4, 4, 4), 0)
    with pytest.raises(FloatingPointError, match="epoch 1 of 3; lower lr"):
        fit_network(
            net,
            images(32),
            lambda x, y, epoch: (net(x, generator())[0].mean() * float("nan"), {}),
            Context(),
            stage="t",
            epochs=3,
            batch_size=16,
            lr=0.01,
            clip=5.0,
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decoder_input": "z"}, "expected code, stem or none"),
        ({"rounding": "floor"}, "expected trunc or round"),
        ({"kd": 0.0}, "kd=0, expected more than 0 .*nats per latent position"),
        ({"epochs": 0}, "at least 1"),
    ],
)
def test_bad_parameters(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DVAE(**values)


class TestVAE:
    def test_parameters_are_those_of_dvae_without_its_second_half(self) -> None:
        assert count(VAENet(INFO, 64, 64, 256)) == 1_181_382 - 187_395 - 327_680

    def test_seeded_and_in_order(self) -> None:
        data = images(32)
        vae = VAE(width=4, latent=4, epochs=1, batch_size=16)
        once, again = (vae.purify(data, Context()) for _ in range(2))
        assert torch.equal(once.x, again.x)
        assert torch.equal(once.y, data.y)

    def test_a_fit_comes_nearer_to_the_images(self) -> None:
        data = images(64, info=TINY)

        def error(epochs: int) -> float:
            out = VAE(width=8, latent=4, epochs=epochs, batch_size=8).purify(data, Context())
            return (to_float(out.x) - to_float(data.x)).square().mean().item()

        assert error(20) < 0.8 * error(1)
