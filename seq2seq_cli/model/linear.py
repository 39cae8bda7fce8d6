"""The matrix products of a stack, in one place."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """x [..., in] -> x @ weight.T + bias [..., out].

    Nothing is drawn when it is made: its values come from a file or from ``initialise``.
    """

    def reset_parameters(self) -> None:
        """Leave the values open."""
