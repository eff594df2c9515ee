"""Train surrogates: networks whose gradients or features an attack uses.

A surrogate is a victim that ``fit`` trained on the clean images.

An attack asks for one with ``trained_surrogate`` in its decorator, which names the parameters that
decide the training. The planner makes a stage of this training. Attacks with the same values share
the stage.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmark.api import Attack, Context, Defense
from benchmark.catalogue.protocol import Protocol, get_protocol
from benchmark.data import ImageSet
from benchmark.training.train import build_victim, fit

# Share of the way from chance to perfect; a surrogate below it has learned nothing useful.
LEARNED = 0.1


class _Augmented(Defense):
    """Apply an attack's own augmentation while its surrogate is trained."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack

    def augment(self, x: Tensor, y: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        return self._attack.augment_surrogate(x, ctx), y


def train_surrogate(attack: Attack, data: ImageSet, ctx: Context) -> list[dict[str, Tensor]]:
    """Train the surrogate of ``attack`` on clean images.

    Returns:
        The states of the network after ``checkpoints`` equally spaced epochs, the last epoch among
        them. An attack without that parameter gets the state after the last epoch.

    Raises:
        ValueError: if the network has learned nothing, or there are more checkpoints than epochs.
    """
    victim = str(getattr(attack, "surrogate"))  # noqa: B009  the base class has none
    protocol, count = training_of(attack)
    wanted = {round((i + 1) * protocol.epochs / count) for i in range(count)}
    states: list[dict[str, Tensor]] = []

    def after_epoch(epoch: int, model: nn.Module) -> None:
        if epoch + 1 in wanted:
            state = model.state_dict().items()
            states.append({key: value.detach().to("cpu", copy=True) for key, value in state})

    result = fit(victim, protocol, data, ctx, _Augmented(attack), after_epoch=after_epoch)
    chance, reached = chance_accuracy(data), result.train_acc[-1]
    check_learned(
        victim,
        (reached - chance) / (1 - chance),
        f"{reached:.1%} of its training images after {protocol.epochs} epochs of {protocol.name}, "
        f"where chance is {chance:.1%}",
        "raise surrogate_epochs, or choose another surrogate or surrogate_protocol",
    )
    ctx.note(surrogate_train_acc=reached)
    return states


def training_of(attack: Attack) -> tuple[Protocol, int]:
    """Return the protocol that trains the surrogate of ``attack``, and how many checkpoints it has.

    Raises:
        ValueError: if there are more checkpoints than epochs.
    """
    epochs = int(getattr(attack, "surrogate_epochs", 0))
    name = str(getattr(attack, "surrogate_protocol"))  # noqa: B009  not every attack has one
    protocol = get_protocol(name).with_values({"epochs": epochs} if epochs else {})
    count = int(getattr(attack, "checkpoints", 1))
    if not 1 <= count <= protocol.epochs:
        raise ValueError(
            f"checkpoints={count} of a surrogate that is trained for {protocol.epochs} epochs; "
            "raise surrogate_epochs"
        )
    return protocol, count


def chance_accuracy(data: ImageSet) -> float:
    """Return the accuracy of always naming the largest class, in [0, 1]."""
    return float(data.y.bincount().max()) / len(data)


def chance_loss(data: ImageSet) -> float:
    """Return the cross-entropy of always predicting the shares of the classes, in nats."""
    shares = data.y.bincount().double() / len(data)
    return float(torch.special.entr(shares).sum())


def check_learned(victim: str, way: float, found: str, advice: str) -> None:
    """Refuse a surrogate that has learned nothing.

    An attack that used it would add random noise.

    Args:
        victim: the name of its architecture.
        way: the share of the way from chance, 0, to its aim, 1, that it has come.
        found: the same in words.
        advice: the change that the message suggests.

    Raises:
        ValueError: if the surrogate has come less than a tenth of the way.
    """
    if not way >= LEARNED:
        raise ValueError(f"the surrogate {victim} did not learn: {found}; {advice}")


def surrogates(attack: Attack, data: ImageSet, ctx: Context) -> list[nn.Module]:
    """Return the trained networks of ``attack`` in the order of their epochs.

    They are on the device, in eval mode, with frozen weights. They come from the stage that the
    planner made. Without such a stage, as in a test, this function trains them.
    """
    states = train_surrogate(attack, data, ctx) if ctx.surrogates is None else ctx.surrogates
    models = []
    for state in states:
        network = str(getattr(attack, "surrogate"))  # noqa: B009
        model = build_victim(network, data.info, 0, ctx.registry)
        model.load_state_dict(dict(state))
        models.append(model.to(ctx.device).eval().requires_grad_(False))
    return models


def features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input of the last linear layer of ``model``, float (B, F), and the logits.

    Raises:
        ValueError: if the network has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} has no linear layer, before which features could be taken; "
            "choose another surrogate"
        )
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        logits: Tensor = model(x)
    finally:
        handle.remove()
    return torch.flatten(seen[-1], 1), logits
