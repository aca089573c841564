"""Typed errors. Every one carries a reason code a program can match on and one line a person can read."""

from __future__ import annotations


class OnnesError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    code : str
        Stable, lower-case, hyphenated reason code (``"overlapping-atoms"``).
    message : str
        One line: what was found, where, and what would have been accepted.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = " ".join(str(message).split())
        super().__init__(f"{self.message} [{code}]")

    def __reduce__(self) -> tuple[type[OnnesError], tuple[str, str]]:
        # Exceptions cross process boundaries (worker pools); the default pickling would call
        # __init__ with the formatted message alone.
        return (type(self), (self.code, self.message))


class InputError(OnnesError):
    """A file or argument cannot be used as it is (missing, empty, binary, unknown format)."""


class CrystalError(OnnesError):
    """A structure was read but is refused by the gate (overlap, disorder, flat cell, ...)."""


class PhysicsError(OnnesError):
    """A physical quantity is undefined or outside the validity of the formula asked for."""


class DataError(OnnesError):
    """A data set is missing, damaged (checksum), or does not follow the record schema."""


class SettingsError(OnnesError):
    """A setting has an unknown name or a value that is not allowed."""


class ModelError(OnnesError):
    """A checkpoint is damaged, of another kind, or asked for something it was not trained for."""


class LedgerError(OnnesError):
    """The run folder or its ledger is damaged, in use by another driver, or of another campaign."""
