"""Rate-constrained VAE: an autoencoder with a bounded rate reconstructs each image.

Source: the plain-VAE baseline of Yu, Wang, Xia, Yang, Lu, Tan, Kot, "Purify Unlearnable Examples
via Rate-Constrained Variational Autoencoders", ICML 2024, arXiv:2405.01460. Network and schedule
follow the released class and configuration.

Departures:
- The release holds no script for this baseline. So its loss is D-VAE's without the perturbation
  terms, and the rate target of 3.0 nats per position is a choice of uebench. Say so where you print
  a number.
- Every random draw is seeded.
- Precision and ``epochs`` depart as those of ``dvae`` do.
"""

from __future__ import annotations

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


class VAENet(nn.Module):
    """Encoder and image decoder."""

    def __init__(self, info: DatasetInfo, width: int, decoder_width: int, latent: int) -> None:
        super().__init__()
        if info.height % 2 or info.width % 2:
            raise ValueError(f"images are {info.height} x {info.width}; vae needs even sides")
        self.encoder = Encoder(info.channels, width, latent, deep=False)
        self.image_decoder = decoder(
            self.encoder.features, decoder_width, info.channels, deep=False
        )

    def forward(
        self, x: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction (B, C, H, W) in [0, 1], and mean and log-variance of the code.

        All are float32. The generator draws the code; None takes its mean.
        """
        _, mean, log_var = self.encoder(x)
        code = self.encoder.post(sample(mean, log_var, generator))
        return torch.sigmoid(self.image_decoder(code).float()), mean, log_var


@defense(
    version=1,
    cite="arXiv:2405.01460",
    effort={"epochs": 2.0},
    toy={"width": 4, "latent": 4, "epochs": 1, "batch_size": 32},
)
class VAE(Defense):
    """Rate-constrained VAE: replace each image by its reconstruction at a bounded rate.

    Parameters:
        width: channels of the encoder's first layer.
        decoder_width: channels of the decoder's first layer; 0 means as the encoder.
        latent: channels of the latent code.
        target: rate in nats per latent position.
        rate_weight: weight of the rate term; 0 means the released rule, 0.01 for targets above 0.99
            and else 0.5.
        epochs: of the training.
        batch_size: of the training; few images want small batches.
        lr: of Adam.
        anneal: its cosine to 0 goes down by epoch (as released) or by step; few epochs want steps.
        clip: bound on the gradient's global L2 norm.
        sample_code: draw the code when reconstructing, as the release does; false takes its mean.
        rounding: trunc (as released) or round.
    """

    width: Annotated[int, Ge(2)] = 64
    decoder_width: int = 0
    latent: Annotated[int, Ge(1)] = 256
    target: Annotated[float, Gt(0)] = 3.0
    rate_weight: Annotated[float, Ge(0)] = 0.0
    epochs: Annotated[int, Ge(1)] = 60
    batch_size: Annotated[int, Ge(2)] = 128
    lr: float = 0.005
    anneal: Literal["epoch", "step"] = "epoch"
    clip: float = 5.0
    sample_code: bool = True
    rounding: Literal["trunc", "round"] = "trunc"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        net = seeded(
            lambda: VAENet(data.info, self.width, self.decoder_width or self.width, self.latent),
            ctx.seed("init"),
        )
        noise = ctx.generator("noise", ctx.device)
        weight = rate_weight(self.target, self.rate_weight)

        def loss(x: Tensor, y: Tensor, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
            with ctx.autocast():
                image, mean, log_var = net(x, noise)
            rec, kl = (image - x).square().mean(), kl_rate(mean, log_var)
            return rec + weight * hinge(kl, self.target), {"rec": rec, "kl": kl}

        means = fit_network(
            net,
            data,
            loss,
            ctx,
            stage="vae",
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            anneal=self.anneal,
            clip=self.clip,
            floor=weight * self.target,
        )
        means["rate_target"] = self.target
        ctx.note(**{name: round(value, 6) for name, value in means.items()})
        ctx.keep("model", net.state_dict())
        return self._reconstruct(net, data, ctx)

    @torch.no_grad()
    def _reconstruct(self, net: nn.Module, data: ImageSet, ctx: Context) -> ImageSet:
        ready(net, ctx)
        out = torch.empty_like(data.x)
        generator = ctx.generator("code", ctx.device) if self.sample_code else None
        for part, x, _ in image_batches(data, ctx):
            with ctx.autocast():
                image = in_parts(lambda x: net(x, generator)[0], x)
            rounded = truncate_uint8(image) if self.rounding == "trunc" else to_uint8(image)
            out[part] = rounded.cpu()
        return data.with_x(out)
