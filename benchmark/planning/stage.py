"""A stage of a plan: one unit of work with the key of its result."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.planning.jobs import Job


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit of work: train the surrogate of an attack, poison, purify, or train a victim.

    Attributes:
        key: sha256 that names the result: the digest of ``job.identity()``.
        inputs: keys of the stages whose results it reads.
        job: what to do.
        label: name for users, such as ``purify em with dvae``.
        cost: estimated passes of the victim over the training set, for the order of stages and for
            the time left.
    """

    key: str
    inputs: tuple[str, ...]
    job: Job
    label: str
    cost: float = 1.0

    @property
    def kind(self) -> str:
        """``surrogate``, ``poison``, ``purify`` or ``train``."""
        return self.job.kind
