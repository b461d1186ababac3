"""Which tokens of a text are hidden from an encoder that is to fill them in, and what it sees in their place.

Of the tokens that are not special `rate` are chosen; of those 80% become the mask token, 10% a random one and 10% stay
(Devlin et al. 2018, section 3.1).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from models.errors import BadBase

NOT_MASKED = -100  # the target of a token that is not to be filled in
MASK_TOKENS = ("[MASK]", "<mask>")
MASKED, RANDOM = 0.8, 0.9  # up to here of the chosen ones: the mask token, a random one; the rest stay

Ids = npt.NDArray[np.int64]


class Masking:
    """The masking that goes with a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, rate: float) -> None:
        """Choose `rate` of the tokens, in (0, 1). Raises BadBase for a tokenizer without a mask token."""
        ids = [tokenizer.token_to_id(token) for token in MASK_TOKENS]
        found = [number for number in ids if number is not None]
        if not found:
            names = " or ".join(MASK_TOKENS)
            raise BadBase(f"base: its tokenizer has no mask token ({names}), so it cannot be pre-trained")
        special = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        self._rate = rate
        self._mask = found[0]
        self._specials = frozenset((*special, found[0]))
        self._special = np.array(sorted(self._specials), np.int64)
        self._ordinary = np.setdiff1d(np.array(sorted(tokenizer.get_vocab().values()), np.int64), self._special)

    def maskable(self, ids: Sequence[int]) -> int:
        """How many of a text's tokens are not special."""
        return sum(number not in self._specials for number in ids)

    def __call__(self, ids: Ids, attention_mask: Ids, chance: np.random.Generator) -> tuple[Ids, Ids]:
        """What the encoder sees, and what it is to say, NOT_MASKED where nothing: both [n, t], as ids and mask are.

        Of each row at least one token is chosen, if it has one that is not special.
        """
        can = (attention_mask > 0) & ~np.isin(ids, self._special)
        draw = np.where(can, chance.random(ids.shape), 2.0)
        chosen = can & ((draw < self._rate) | (draw == draw.min(axis=1, keepdims=True)))
        fate = chance.random(ids.shape)
        seen = np.where(chosen & (fate < MASKED), self._mask, ids)
        others = self._ordinary[chance.integers(len(self._ordinary), size=ids.shape)]
        seen = np.where(chosen & (fate >= MASKED) & (fate < RANDOM), others, seen)
        return seen, np.where(chosen, ids, NOT_MASKED)
