"""The likeliest tokens of a large vocabulary by a rough product first: exact, in a fraction of the time.

In whole numbers of eight bits a product takes a fifth of its time in float32. How far each rough score may be
from the true one is known (Cauchy-Schwarz, from what rounding took away of either side), so the tokens that
cannot be among the likeliest are known, too; the few that are left get their scores in full precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.model.rounding import rounded

#: tokens a block: they share a scale, and what can be left out is first asked of whole blocks
BLOCK = 64
#: more blocks and tokens a row than these are no short list: the whole product costs no more
_MOST_BLOCKS, _MOST_TOKENS = 256, 64
#: rows at a time: their rough scores stay near the processor
_ROWS = 64
#: of the product of both lengths: what sums in float32 may be off by
_FLOAT = 1e-5
_GONE = float("-inf")
_LOW = torch.iinfo(torch.int32).min


#: smaller vocabularies, and the first steps of a model, gain less than the rounding of the matrix costs
_LEAST_VOCABULARY = 8192
_FIRST_STEPS = 32
#: so many steps without a short list, and more than with one: such a model has none
_PATIENCE = 8


class Preview:
    """Makes the short list of a matrix once it pays, anew when the matrix has changed, and gives it up where
    it does not help."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop what is known of the matrix."""
        self._steps = self._missed = self._found = 0
        self._known: tuple[int, int] | None = None
        self._list: Shortlist | None = None

    def scores(self, states: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> Tensor | None:
        """As ``Shortlist`` for states [..., D]; None where the whole product is the better way."""
        known = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if known != self._known:
            self.forget()
            self._known = known
        self._steps += 1
        if self._steps <= _FIRST_STEPS or self._missed > max(_PATIENCE, self._found):
            return None
        if self._list is None:
            if not _pays(weight):
                return None
            self._list = Shortlist(weight, bias)
        found = self._list(states.reshape(-1, states.shape[-1]), count)
        if found is None:
            self._missed += 1
            return None
        self._found += 1
        return found.view(*states.shape[:-1], -1)


def _pays(weight: Tensor) -> bool:
    """Whether eight bits are faster for this matrix: where a CPU has instructions for them."""
    fast = weight.device.type == "cpu" and torch.cpu._is_vnni_supported()
    return fast and weight.dtype == torch.float32 and len(weight) >= _LEAST_VOCABULARY


class Shortlist:
    """A vocabulary matrix [V, D] in eight bits, and how far it is from the true one."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        wholes, scales, errors = [], [], []
        for part in torch.split(self._weight, 16 * BLOCK):  # a second matrix in float32 is never held
            padded = F.pad(part, (0, 0, 0, -len(part) % BLOCK)).view(-1, BLOCK * part.shape[1])
            whole, scale = rounded(padded)
            wholes.append(whole.view(-1, part.shape[1]))
            scales.append(scale)
            errors.append((padded - whole * scale).view(-1, BLOCK, part.shape[1]).norm(dim=2))
        self._whole = torch.cat(wholes)
        self._scale = torch.cat(scales)[:, 0]  # [blocks]
        self._errors = torch.cat(errors)  # [blocks, BLOCK]
        self._block_errors = self._errors.amax(1)
        self._block_lengths = (
            F.pad(self._weight.norm(dim=1), (0, -len(weight) % BLOCK)).view(-1, BLOCK).amax(1)
        )
        self._rough: Tensor | None = None
        self._padded_bias = None
        if self._bias is not None:
            self._padded_bias = F.pad(self._bias, (0, -len(weight) % BLOCK)).view(-1, BLOCK)

    def __call__(self, states: Tensor, count: int) -> Tensor | None:
        """States [R, D] -> scores [R, V], right for at least the ``count`` likeliest tokens of each row and
        -inf for the others; None where too many tokens come near the likeliest."""
        if count > len(self._scale) or not bool(states.isfinite().all()):
            return None
        scores = states.new_full((len(states), len(self._weight)), _GONE)
        for place in range(0, len(states), _ROWS):
            part = states[place : place + _ROWS]
            near = self._near(part, count)
            if near is None:
                return None
            rows, tokens = near
            exact = (part[rows] * self._weight[tokens]).sum(1)
            if self._bias is not None:
                exact += self._bias[tokens]
            scores[place + rows, tokens] = exact
        return scores

    def _near(self, states: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """Rows and tokens [N] of all that may be among the ``count`` likeliest of states [R, D]."""
        whole, scale = rounded(states)
        length = states.norm(dim=1, keepdim=True)
        lost = (states - whole * scale).norm(dim=1, keepdim=True) + _FLOAT * length
        if self._rough is None or len(self._rough) < len(states):  # kept: new memory costs more than it holds
            self._rough = torch.empty(len(states), len(self._whole), dtype=torch.int32)
        rough = torch._int_mm(whole, self._whole.t(), out=self._rough[: len(states)])
        rough[:, len(self._weight) :] = _LOW
        rough = rough.view(len(states), -1, BLOCK)
        unit = scale * self._scale
        if self._padded_bias is None:
            tops = rough.amax(-1) * unit
        else:
            tops = torch.addcmul(self._padded_bias, rough, unit[:, :, None]).amax(-1)
        # |w x - w' x'| <= |w - w'| |x'| + |w| |x - x'|, and |x'| <= |x| + |x - x'|
        slack = self._block_errors * (length + lost) + self._block_lengths * lost
        least = (tops - slack).topk(count, dim=1).values[:, -1:]
        rows, blocks = (tops + slack >= least).nonzero(as_tuple=True)
        if len(rows) > _MOST_BLOCKS * len(states):
            return None
        # how much of the slack is left open to a single token: its own error instead of its block's worst
        bound = rough[rows, blocks] * unit[rows, blocks, None] + self._errors[blocks] * (length + lost)[rows]
        if self._padded_bias is not None:
            bound += self._padded_bias[blocks]
        wanted = least[rows] - (self._block_lengths[blocks, None] * lost[rows])
        found, inside = (bound >= wanted).nonzero(as_tuple=True)
        rows, tokens = rows[found], blocks[found] * BLOCK + inside
        return None if len(rows) > _MOST_TOKENS * len(states) else (rows, tokens)
