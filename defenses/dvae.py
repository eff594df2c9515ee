"""D-VAE: two rate-constrained autoencoders, each with a second decoder for the perturbation.

Source: Yu, Wang, Xia, Yang, Lu, Tan, Kot, "Purify Unlearnable Examples via Rate-Constrained
Variational Autoencoders", ICML 2024, arXiv:2405.01460. Network, losses, constants and the order of
the pipeline follow the released code.

Stage 1 is fitted to the protected images with a tight rate, and its perturbation is subtracted.
Stage 2 is fitted to the result with a looser rate, and its perturbation is subtracted too. The
purified image is what stage 2 then reconstructs.

Departures:
- The rest of the classifier behind the encoder is not built; in the release it is evaluated but
  receives no gradient.
- The cross-entropies that the release only logs are not computed, so no trained classifier is
  needed.
- The perturbation decoder reads the sampled code plus the class embedding, as in the authors'
  scripts (the flags of their command line invert); ``decoder_input`` gives the other two forms.
- Embeddings are as wide as the feature that they are added to; at 224 px the release adds tensors
  of different shapes and fails.
- The kept perturbation of stage 2 is the subtracted one; the release saves that of the second
  forward pass, which nothing reads. The perturbations of both stages are kept as float16.
- Every random draw is seeded, including the weights and the noise of purification.
- Where the hardware has bf16, the networks run in bf16 (``precision`` auto); the release runs in
  fp32. Losses are fp32 here, too.
- ``epochs`` is that of CIFAR-10; the release has 100 for CIFAR-100 and 20 for ImageNet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from benchmark import Context, DatasetInfo, Defense, ImageSet, defense
from benchmark.data import to_uint8, truncate_uint8
from defenses._rate_vae import (
    Encoder,
    decoder,
    fit_network,
    hinge,
    image_batches,
    in_parts,
    kl_rate,
    rate_weight,
    ready,
    sample,
    seeded,
)


@dataclass(frozen=True)
class Output:
    """The result of one forward pass.

    Attributes:
        image: the reconstruction, float32 (B, C, H, W).
        perturbation: float32 (B, C, H, W).
        mean, log_var: of the code, float32 (B, latent, h, w).
    """

    image: Tensor
    perturbation: Tensor
    mean: Tensor
    log_var: Tensor


class DVAENet(nn.Module):
    """Encoder, image decoder, perturbation decoder and class embedding."""

    def __init__(
        self,
        info: DatasetInfo,
        width: int,
        decoder_width: int,
        latent: int,
        spatial: bool,
        deep: bool,
        decoder_input: str,
    ) -> None:
        super().__init__()
        scale = 8 if deep else 2
        if info.height % scale or info.width % scale:
            raise ValueError(
                f"images are {info.height} x {info.width}; dvae needs sides that {scale} divides"
            )
        self.encoder = Encoder(info.channels, width, latent, deep)
        self.image_decoder = decoder(self.encoder.features, decoder_width, info.channels, deep)
        features = self.encoder.features
        self.perturbation_decoder = decoder(features, decoder_width, info.channels, deep)
        sides = (info.height // scale, info.width // scale) if spatial else (1, 1)
        self.map_shape = (features, *sides)
        self.embedding = nn.Embedding(info.num_classes, math.prod(self.map_shape))
        self.decoder_input = decoder_input

    def forward(self, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Output:
        """Reconstruct images and find their perturbation.

        Args:
            x: float (B, C, H, W) in [0, 1].
            y: int64 (B,).
            generator: draws the code, in eval mode too; None takes its mean.
        """
        features, code, mean, log_var = self._encode(x, generator)
        return Output(self._decode(code), self._explain(features, code, y), mean, log_var)

    def image(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the reconstruction alone, at half the cost of ``forward``."""
        return self._decode(self._encode(x, generator)[1])

    def perturbation(self, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the perturbation alone, at half the cost of ``forward``."""
        features, code, _, _ = self._encode(x, generator)
        return self._explain(features, code, y)

    def _encode(
        self, x: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features, mean, log_var = self.encoder(x)
        return features, self.encoder.post(sample(mean, log_var, generator)), mean, log_var

    def _decode(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.image_decoder(code).float())

    def _explain(self, features: Tensor, code: Tensor, y: Tensor) -> Tensor:
        label = self.embedding(y).view(-1, *self.map_shape)
        if self.decoder_input == "code":
            label = label + code
        elif self.decoder_input == "stem":
            label = label + features
        elif label.shape[2:] != features.shape[2:]:
            label = label.expand(-1, -1, *features.shape[2:])
        found: Tensor = self.perturbation_decoder(label).float()
        return found


@dataclass(frozen=True)
class FittedDVAE:
    """Both fitted stages; they apply to any images of the data set that they were fitted on."""

    stage1: DVAENet
    stage2: DVAENet
    rounding: Literal["trunc", "round"]
    sample_code: bool = True

    @torch.no_grad()
    def remove(self, data: ImageSet, ctx: Context) -> tuple[ImageSet, Tensor]:
        """Apply stage 1: return the images less the perturbation found, and that perturbation."""
        ready(self.stage1, ctx)
        generator = ctx.generator("stage 1 code", ctx.device) if self.sample_code else None
        out, found = torch.empty_like(data.x), torch.empty(data.x.shape, dtype=torch.float16)
        for part, x, y in image_batches(data, ctx):
            with ctx.autocast():
                perturbation = in_parts(
                    lambda x, y: self.stage1.perturbation(x, y, generator), x, y
                )
            out[part], found[part] = self._store(x - perturbation), perturbation.half().cpu()
        return data.with_x(out), found

    @torch.no_grad()
    def reconstruct(self, data: ImageSet, ctx: Context) -> tuple[ImageSet, Tensor]:
        """Apply stage 2: reconstruct the images less the perturbation found.

        Returns:
            The reconstructed images, and the perturbation, float16 (N, C, H, W).
        """
        ready(self.stage2, ctx)
        generator = ctx.generator("stage 2 code", ctx.device) if self.sample_code else None
        out, found = torch.empty_like(data.x), torch.empty(data.x.shape, dtype=torch.float16)
        for part, x, y in image_batches(data, ctx):
            with ctx.autocast():
                perturbation = in_parts(
                    lambda x, y: self.stage2.perturbation(x, y, generator), x, y
                )
                cleaned = (x - perturbation).clamp(0, 1)  # stays float between the two passes
                image = in_parts(lambda x: self.stage2.image(x, generator), cleaned)
            out[part], found[part] = self._store(image), perturbation.half().cpu()
        return data.with_x(out), found

    def _store(self, x: Tensor) -> Tensor:
        return (truncate_uint8(x) if self.rounding == "trunc" else to_uint8(x)).cpu()


@defense(
    version=1,
    cite="arXiv:2405.01460",
    effort={"epochs": 6.0},
    toy={"width": 4, "latent": 4, "epochs": 1, "batch_size": 32},
)
class DVAE(Defense):
    """D-VAE: subtract the perturbation in two rate-constrained stages, and reconstruct the images.

    Parameters:
        width: channels of the encoder's first layer.
        decoder_width: channels of the decoders' first layer; 0 means as the encoder.
        latent: channels of the latent code.
        spatial: one embedding value a class and position, not only a class and channel.
        deep: the 224-px network, with latents at 1/8 of the resolution.
        decoder_input: what is added to the class embedding for the perturbation decoder: code, stem
            or none.
        target: rate of stage 1, nats per latent position.
        kd: rate of stage 2, nats per latent position.
        rate_weight: weight of the rate term in both stages; 0 means the released rule, 0.01 for
            targets above 0.99 and else 0.5.
        hinge: mean square below which the perturbation is not penalised.
        hinge_weight: weight of that penalty.
        hinge_from: epoch index from which that penalty acts.
        epochs: of each stage.
        batch_size: of each stage; few images want small batches.
        lr: of Adam.
        anneal: its cosine to 0 goes down by epoch (as released) or by step; few epochs want steps.
        clip: bound on the gradient's global L2 norm.
        sample_code: draw the code when purifying, as the release does; false takes its mean.
        rounding: trunc (as released) or round.
    """

    width: Annotated[int, Ge(2)] = 64
    decoder_width: int = 0
    latent: Annotated[int, Ge(1)] = 256
    spatial: bool = True
    deep: bool = False
    decoder_input: Literal["code", "stem", "none"] = "code"
    target: Annotated[float, Gt(0)] = 1.0
    kd: Annotated[float, Gt(0)] = 3.0
    rate_weight: Annotated[float, Ge(0)] = 0.0
    hinge: Annotated[float, Ge(0)] = 0.002
    hinge_weight: Annotated[float, Ge(0)] = 1.0
    hinge_from: int = 11
    epochs: Annotated[int, Ge(1)] = 60
    batch_size: Annotated[int, Ge(2)] = 128
    lr: float = 0.005
    anneal: Literal["epoch", "step"] = "epoch"
    clip: float = 5.0
    sample_code: bool = True
    rounding: Literal["trunc", "round"] = "trunc"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        fitted, middle, first = self.fit(data, ctx)
        purified, second = fitted.reconstruct(middle, ctx)
        ctx.keep("perturbation", {"stage1": first, "stage2": second})
        stages = {"stage1": fitted.stage1.state_dict(), "stage2": fitted.stage2.state_dict()}
        weights = {
            f"{name}.{key}": value for name, state in stages.items() for key, value in state.items()
        }
        ctx.keep("model", weights)
        return purified

    def fit(self, data: ImageSet, ctx: Context) -> tuple[FittedDVAE, ImageSet, Tensor]:
        """Fit both stages; stage 2 starts from new weights and reads the output of stage 1.

        Returns:
            The fitted stages; the images that stage 1 makes of ``data``; and the perturbation that
            stage 1 found, float16 (N, C, H, W).
        """
        stage1 = self._fit_stage(data, self.target, "stage 1", ctx, (0.0, 0.5))
        middle, found = self._fitted(stage1, stage1).remove(data, ctx)
        stage2 = self._fit_stage(middle, self.kd, "stage 2", ctx, (0.5, 1.0))
        return self._fitted(stage1, stage2), middle, found

    def _fitted(self, stage1: DVAENet, stage2: DVAENet) -> FittedDVAE:
        return FittedDVAE(stage1, stage2, self.rounding, self.sample_code)

    def network(self, info: DatasetInfo) -> DVAENet:
        """Build one untrained network for a data set."""
        return DVAENet(
            info,
            self.width,
            self.decoder_width or self.width,
            self.latent,
            self.spatial,
            self.deep,
            self.decoder_input,
        )

    def loss_terms(
        self, out: Output, x: Tensor, target: float, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of one batch and its terms ``rec``, ``rec_p``, ``kl``, ``p``."""
        rec = (out.image - x).square().mean()
        both = (out.image + out.perturbation).clamp(0, 1)
        rec_p = (both - x).square().mean()  # trains the image decoder too
        kl = kl_rate(out.mean, out.log_var)
        p = out.perturbation.square().mean()
        loss = rec + rec_p + rate_weight(target, self.rate_weight) * hinge(kl, target)
        if epoch >= self.hinge_from:
            loss = loss + self.hinge_weight * hinge(p, self.hinge)
        return loss, {"rec": rec, "rec_p": rec_p, "kl": kl, "p": p}

    def _floor(self, target: float) -> float:
        """Return what the hinges add to the loss at the end, however well the network is fitted."""
        small = self.hinge_weight * self.hinge if self.hinge_from < self.epochs else 0.0
        return rate_weight(target, self.rate_weight) * target + small

    def _fit_stage(
        self,
        data: ImageSet,
        target: float,
        stage: str,
        ctx: Context,
        span: tuple[float, float] = (0.0, 1.0),
    ) -> DVAENet:
        net = seeded(lambda: self.network(data.info), ctx.seed(f"{stage} init"))
        generator = ctx.generator(f"{stage} noise", ctx.device)

        def loss(x: Tensor, y: Tensor, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
            with ctx.autocast():
                out = net(x, y, generator)
            return self.loss_terms(out, x, target, epoch)

        means = fit_network(
            net,
            data,
            loss,
            ctx,
            stage=stage,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            anneal=self.anneal,
            clip=self.clip,
            floor=self._floor(target),
            span=span,
        )
        means["rate_target"] = target
        short = stage.replace(" ", "")
        ctx.note(**{f"{short}_{name}": round(value, 6) for name, value in means.items()})
        net.eval()
        return net
