"""What is particular to SEM: a uniform draw in place of a search, and nothing else.

The tests of REM, whose engine it shares, cover the rest.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from test_rem import SMALL as SMALL_REM
from test_rem import batch, check_passes, naive_noise, nets  # noqa: F401  nets is a fixture
from torch import Tensor

from attacks.rem import REM
from attacks.sem import SEM
from benchmark import Context, ImageSet
from benchmark.running.verify import verify_poison
from support.counting_net import CountingNet

SMALL = SEM(**asdict(SMALL_REM))


def test_its_parameters_are_those_of_rem() -> None:
    assert asdict(SEM()) == asdict(REM())


def test_without_a_radius_it_is_rem(toy: ImageSet) -> None:
    plain = {**asdict(SMALL), "radius": 0.0}
    assert torch.equal(SEM(**plain).poison(toy, Context()).x, REM(**plain).poison(toy, Context()).x)
    assert not torch.equal(SMALL.poison(toy, Context()).x, SMALL_REM.poison(toy, Context()).x)


def test_the_offset_is_one_uniform_draw_a_view(toy: ImageSet, nets: list[CountingNet]) -> None:  # noqa: F811
    x = torch.full((12, *toy.x.shape[1:]), 0.5)
    net = CountingNet(toy.info)
    offset = SMALL.attacked(net, x, toy.y[:12], torch.Generator().manual_seed(0), Context()) - x
    assert net.images == 0
    assert float(offset.abs().max()) <= 4 / 255 + 1e-7
    assert float(offset.mean()) == pytest.approx(0, abs=2e-4)
    assert float(offset.std()) == pytest.approx(4 / 255 / 3**0.5, rel=0.02)


def test_noise_equals_that_of_a_loop_over_views(toy: ImageSet) -> None:
    net = CountingNet(toy.info).eval()
    offsets: list[Tensor] = []
    generator = Context().generator("p attack")
    for _ in range(SMALL.noise_steps):
        offsets.append(
            torch.empty(2 * 12, *toy.x.shape[1:]).uniform_(
                -SMALL.radius, SMALL.radius, generator=generator
            )
        )
    fast = SMALL.descend(net, *batch(toy), toy.info, "p", Context())
    # the sums of a convolution may differ in the last bit, and with it the sign of a gradient
    # that is nearly zero
    assert float((fast != naive_noise(SMALL, net, toy, offsets, "p")).float().mean()) < 0.002


def test_passes_of_a_step_and_of_the_final_noise_are_those_of_the_plan(
    toy: ImageSet,
    nets: list[CountingNet],  # noqa: F811
) -> None:
    check_passes(SMALL, SEM(), toy, nets, lambda attack: 1)


def test_budget_holds_and_every_image_changes(toy: ImageSet) -> None:
    facts = verify_poison(toy, SMALL.poison(toy, Context()), SMALL)
    assert facts["changed"] == 1.0
    assert facts["linf"] == pytest.approx(8 / 255)


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="write 8/255, not 8"):
        replace(SMALL, eps=8.0)
