"""Where to stop: before over-fitting, at its worst, or after it (double descent).

The validation loss of a network that is trained far falls, rises while it memorises, and may fall again. Gibson et
al. (arXiv:2401.16611) keep the weights of the second descent. Here all three are kept while the loss goes by:
``classical`` is the minimum before the loss has risen for good, ``critical`` the maximum after that, ``modern`` the
minimum after the maximum (the end of the training where the loss never rose).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from onnes.errors import ModelError

REGIMES = ("classical", "critical", "modern")
#: The loss has risen for good when its smoothed value is this much above the minimum.
RISE = 1.02
#: Weight of the newest value in the smoothed loss.
NEW = 0.1


class Regimes:
    """Snapshots of the three regimes, kept as the training goes by.

    Attributes
    ----------
    epochs : dict of str to int
        When each was seen; a regime that was not reached is missing.
    smooth : float or None
        Exponentially smoothed validation loss.
    """

    def __init__(self) -> None:
        self.smooth: float | None = None
        self.values: dict[str, float] = {}
        self.epochs: dict[str, int] = {}
        self.states: dict[str, dict[str, Tensor]] = {}
        self.risen = False

    def see(self, epoch: int, valid: float, train: float, state: dict[str, Tensor]) -> None:
        """Take note of an epoch; without validation rows (NaN) the last epoch is ``modern``.

        Raises
        ------
        ModelError
            ``diverged``: the training loss is no number.
        """
        if train != train:
            raise ModelError("diverged", f"the loss of epoch {epoch} is not a number; use a smaller rate")
        if valid != valid:
            self._keep("modern", epoch, train, state)
            return
        self.smooth = valid if self.smooth is None else (1.0 - NEW) * self.smooth + NEW * valid
        now = self.smooth
        if not self.risen:
            if now <= self.values.get("classical", float("inf")):
                self._keep("classical", epoch, now, state)
            elif now > RISE * self.values["classical"]:
                self.risen = True
                self._keep("critical", epoch, now, state)
            return
        if now > self.values["critical"]:
            self._keep("critical", epoch, now, state)
            # A new maximum: what looked like a second descent was not one.
            for kept in (self.values, self.epochs, self.states):
                kept.pop("modern", None)
        elif now <= self.values.get("modern", float("inf")):
            self._keep("modern", epoch, now, state)

    def _keep(self, name: str, epoch: int, value: float, state: dict[str, Tensor]) -> None:
        self.values[name], self.epochs[name] = value, epoch
        self.states[name] = {k: v.detach().clone() for k, v in state.items()}

    def state(self, regime: str) -> dict[str, Tensor] | None:
        """Weights of a regime; None where the training did not reach it: its last weights stand for it."""
        return self.states.get(regime)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "smooth": self.smooth,
            "values": self.values,
            "epochs": self.epochs,
            "states": self.states,
            "risen": self.risen,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Regimes:
        """Read back what `as_dict` gave."""
        out = cls()
        for name, value in values.items():
            setattr(out, name, value)
        return out
