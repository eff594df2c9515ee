"""Check what a method returned, before anything builds on it.

Nothing is repaired: to clip in silence would change the method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmark.api import Attack, Defense
from benchmark.catalogue.spec import ANCHOR
from benchmark.data import L2_ALLOWED, ImageSet, at_once, chunks
from benchmark.running.linear_probe import linear_probe

Facts = dict[str, float | int | None]

SAMPLE = 16  # images over the budget that are compared with other clean images

SHOWN = {"linf": "L-inf", "l2": "L2", "l0": "L0"}


@contextmanager
def unchanged(data: ImageSet, who: str) -> Iterator[None]:
    """Refuse a method that changes its input in place.

    The harness would compare the output of such a method with itself.

    Raises:
        ValueError: if the images or labels of ``data`` are not what they were; the message names
            ``who``.
    """
    before = data.fingerprint
    yield
    same_tensors = data.with_x(data.x)  # a new set, since ``data`` remembers its fingerprint
    if same_tensors.fingerprint != before:
        raise ValueError(
            f"{who} changed its input in place; leave the images it is given as they are and "
            "return others"
        )


def verify_poison(clean: ImageSet, poisoned: object, attack: Attack) -> Facts:
    """Check a poison's images, order, labels and budget against the clean set.

    After rounding, L-inf may exceed the budget by half a level (0.5/255) and L2 by 1 %; L0 counts
    changed pixels and is exact.

    Returns:
        ``linf`` (largest), ``l2_max``, ``l2_mean`` in [0, 1] units; ``l0_max`` in pixels;
        ``psnr_mean`` in dB over the changed images, None if there are none; ``changed``, the share
        of changed images; ``probe``, the accuracy in [0, 1] with which a linear model tells the
        classes by the change alone (see ``linear_probe``).

    Raises:
        TypeError: if ``poisoned`` is no ImageSet.
        ValueError: if count, labels, order or budget do not hold; the message names the worst image
            and both norms. Also if no image is changed, since its record would show clean accuracy
            under an attack's name.
    """
    who = f'attack "{attack.name}"'
    result = _image_set(clean, poisoned, who)
    if len(result) != len(clean):
        raise ValueError(
            f"{who} returned {len(result)} images for {len(clean)}; return every image, at its "
            "place"
        )
    if not torch.equal(result.y.cpu(), clean.y.cpu()):
        raise ValueError(_label_message(clean, result, who))
    norms = _change_norms(clean.x, result.x)
    _check_budget(clean, result, norms, attack)
    if attack.name != ANCHOR and not bool((norms["linf"] > 0).any()):
        raise ValueError(
            f"{who} changed no image: what it adds is less than half a level of a pixel, 0.5/255; "
            "raise its budget or its step"
        )
    return _measured(clean, result, norms)


def measure(clean: ImageSet, poisoned: ImageSet) -> Facts:
    """Measure a poison's distance from the clean images as ``verify_poison`` does, unchecked."""
    return _measured(clean, poisoned, _change_norms(clean.x, poisoned.x))


def _measured(clean: ImageSet, result: ImageSet, norms: dict[str, Tensor]) -> Facts:
    return {
        "linf": float(norms["linf"].max()) / 255,
        "l2_max": float(norms["l2"].max()) / 255,
        "l2_mean": float(norms["l2"].mean()) / 255,
        "l0_max": int(norms["l0"].max()),
        **_similarity(norms["l2"], clean.info.size),
        "probe": linear_probe(clean.x.cpu(), result.x.cpu(), clean.y.cpu(), clean.info.num_classes),
    }


def verify_purified(before: ImageSet, after: object, defense: Defense) -> Facts:
    """Check that a purified set is uint8 and has the labels and order of the set it came from.

    A defense that declares ``filters`` may leave images out; the labels of the others must keep
    their order.

    Returns:
        ``kept``, the share of images kept. If all are kept, also ``psnr_mean`` in dB against
        ``before`` over the changed images (None if there are none), and ``changed``, the share of
        changed images.

    Raises:
        TypeError: if ``after`` is no ImageSet, for example floats.
        ValueError: if images are missing without ``filters``, or labels or order changed.
    """
    who = f'defense "{defense.name}"'
    result = _image_set(before, after, who)
    if len(result) > len(before):
        raise ValueError(
            f"{who} returned {len(result)} images for {len(before)}; a defense adds no images"
        )
    if len(result) < len(before):
        if not defense.filters:
            raise ValueError(
                f"{who} returned {len(result)} of {len(before)} images; "
                "return every image, or declare filters=True in its decorator"
            )
        if len(result) == 0:
            raise ValueError(f"{who} dropped all {len(before)} images; nothing is left to train on")
        if not _is_subsequence(result.y.tolist(), before.y.tolist()):
            raise ValueError(
                f"{who} keeps {len(result)} images whose labels or order changed; keep the others "
                "as they stood"
            )
        return {"kept": len(result) / len(before)}
    if not torch.equal(result.y.cpu(), before.y.cpu()):
        raise ValueError(_label_message(before, result, who))
    return {"kept": 1.0, **_similarity(_change_norms(before.x, result.x)["l2"], before.info.size)}


def _image_set(given: ImageSet, returned: object, who: str) -> ImageSet:
    if isinstance(returned, Tensor):
        raise TypeError(
            f"{who} returned a tensor of {returned.dtype} {tuple(returned.shape)}, expected an "
            "ImageSet of uint8; return data.perturb(delta) or data.map(fn), which clip and round"
        )
    if not isinstance(returned, ImageSet):
        raise TypeError(
            f"{who} returned {type(returned).__name__}, expected an ImageSet; return "
            "data.perturb(delta) or data.map(fn)"
        )
    if returned.x.dtype != torch.uint8:
        raise TypeError(
            f"{who} returned images of {returned.x.dtype}, expected uint8; convert with "
            "data.perturb or data.map"
        )
    if returned.info != given.info:
        raise ValueError(
            f"{who} returned images of another data set: {returned.info}, expected {given.info}; "
            "use data.with_x"
        )
    if len(given) == 0:
        raise ValueError(f"{who} was given no images")
    return returned


def _label_message(given: ImageSet, returned: ImageSet, who: str) -> str:
    wrong = (returned.y.cpu() != given.y.cpu()).nonzero().flatten()
    first = int(wrong[0])
    text = (
        f"{who} changed {len(wrong)} of {len(given)} labels (image {first}: "
        f"{int(given.y[first])} became {int(returned.y[first])})"
    )
    if torch.equal(returned.y.cpu().bincount(), given.y.cpu().bincount()):
        return (
            f"{text}; each class has as many images as before, so the images look reordered; "
            "put image i at position i"
        )
    return f"{text}; labels must stay as they are"


def _change_norms(clean: Tensor, changed: Tensor) -> dict[str, Tensor]:
    """Return norms of each image's change, float64 (N,).

    ``linf`` and ``l2`` are in levels 0..255, ``l0`` is in pixels.
    """
    norms = {name: torch.empty(len(clean), dtype=torch.float64) for name in SHOWN}
    for part in chunks(len(clean), at_once(clean)):
        for name, value in _norms(clean[part].cpu().float() - changed[part].cpu().float()).items():
            norms[name][part] = value
    return norms


def _norms(delta: Tensor) -> dict[str, Tensor]:
    """Return norms of (N, C, H, W) in levels; sums of squares are integers, exact in float64."""
    return {
        "linf": delta.abs().amax((1, 2, 3)).double(),
        "l2": delta.square().sum((1, 2, 3), dtype=torch.float64).sqrt(),
        "l0": (delta != 0).any(1).sum((1, 2)).double(),
    }


def _similarity(l2: Tensor, size: int) -> Facts:
    changed = l2[l2 > 0]
    mean = None
    if len(changed):
        mean = float((20 * torch.log10(255 * math.sqrt(size) / changed)).mean())
    return {"psnr_mean": mean, "changed": len(changed) / len(l2)}


def _check_budget(
    clean: ImageSet, poisoned: ImageSet, norms: dict[str, Tensor], attack: Attack
) -> None:
    if attack.norm == "none":
        return
    who = f'attack "{attack.name}"'
    if attack.norm not in SHOWN:
        raise ValueError(f'{who} declares norm "{attack.norm}", expected linf, l2, l0 or none')
    budget = attack.budget(clean.info)
    if not math.isfinite(budget) or budget < 0 or (attack.norm == "linf" and budget > 1):
        raise ValueError(
            f"{who} has a budget of {budget:g} in {SHOWN[attack.norm]}, expected [0, 1] units, "
            "for example 8/255"
        )
    limit = _limit(attack.norm, budget)
    over = (norms[attack.norm] > limit).nonzero().flatten()
    if not len(over):
        return
    worst = int(norms[attack.norm].argmax())
    text = (
        f"{who} breaks its budget: image {worst} changed by "
        f"{_shown(attack.norm, float(norms[attack.norm][worst]))}, "
        f"allowed {_shown(attack.norm, limit)}; {len(over)} of {len(clean)} images are over"
    )
    raise ValueError(text + _reordered(clean, poisoned, over, attack.norm, limit))


def _limit(norm: str, budget: float) -> float:
    """Return the budget in the units of ``_norms``, plus what rounding to uint8 may add."""
    if norm == "linf":
        return budget * 255 + 0.5 + 1e-4  # 1e-4 of a level for the arithmetic of the budget itself
    return budget * 255 * L2_ALLOWED if norm == "l2" else budget


def _shown(norm: str, value: float) -> str:
    if norm == "l0":
        return f"L0 {value:g} pixels"
    return f"L-inf {value:.1f}/255" if norm == "linf" else f"L2 {value / 255:.4f}"


def _reordered(clean: ImageSet, poisoned: ImageSet, over: Tensor, norm: str, limit: float) -> str:
    """Say what the images over the budget look like: reordered, or wrongly projected.

    They look reordered if most of a sample of them are within the budget of another clean image.
    """
    sample = over[torch.linspace(0, len(over) - 1, min(SAMPLE, len(over))).long()]
    images = poisoned.x[sample].cpu().float()
    best = torch.full((len(sample),), torch.inf)
    nearest = torch.zeros(len(sample), dtype=torch.int64)
    for part in chunks(len(clean), at_once(clean.x)):
        others = clean.x[part].cpu().float()
        distance, index = torch.cdist(images.flatten(1), others.flatten(1)).min(1)
        nearest = torch.where(distance < best, index + part.start, nearest)
        best = torch.minimum(best, distance)
    fits = (_norms(images - clean.x[nearest].cpu().float())[norm] <= limit) & (nearest != sample)
    if 2 * int(fits.sum()) <= len(sample):
        return "; check the step that projects or rounds the change"
    i = int(fits.nonzero()[0])
    return (
        f"; the images look reordered: {int(fits.sum())} of {len(sample)} looked at are within "
        f"the budget of another clean image (image {int(sample[i])} resembles clean image "
        f"{int(nearest[i])}); put image i at position i"
    )


def _is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)
