"""vec2text (Morris et al. 2023, arXiv 2310.06816) as a `Decoder`.

The library is an optional extra, since its licence (SOM 1.0) obliges its users to publish the models that they
use with it. It is not imported before a `Vec2TextDecoder` is created.
"""

from collections.abc import Sequence

import numpy as np
import torch

from lvm.data.encoders import Encoder, load_encoder
from lvm.decoding.protocol import Decoded, require_vectors
from lvm.errors import InputError

STEPS = 20
"""Default number of corrections, as in vec2text's own examples."""


CPU_BATCH, ACCELERATOR_BATCH = 32, 256
"""Hypotheses written at once; each needs a key-value cache for up to 128 tokens."""


class Vec2TextDecoder:
    """Decodes with a vec2text checkpoint and the library's own loop; texts are embedded by our encoder.

    `name` is `gtr-base` (the published pair for GTR-T5 with 32 tokens, downloaded once) or a folder as
    described in `lvm.decoding.vec2text.checkpoint`. `steps` is the number of corrections: 0 keeps the inversion
    model's text; None means 20, or 0 if the checkpoint has no corrector. `beam` is vec2text's sequence beam: the
    hypotheses kept from one correction to the next. `encoder` must be the checkpoint's; if None, it is loaded.
    Raises `InputError` when one of these is impossible.

    The result is the text with the highest round-trip cosine of all that the loop considered, so a further step
    never makes it worse. vec2text itself returns the last text.
    """

    def __init__(self, name: str, device: str = "cpu", steps: int | None = None, encoder: Encoder | None = None, beam: int = 1) -> None:
        from lvm.decoding.vec2text.checkpoint import find_checkpoint, load_models

        checkpoint = find_checkpoint(name)
        self.steps = steps if steps is not None else STEPS if checkpoint.corrector else 0
        self.beam = beam
        if self.steps < 0 or beam < 1:
            raise InputError(f"vec2text decoder {name!r}: {self.steps} steps with a beam of {beam}: expected at least 0 and 1")
        if self.steps and checkpoint.corrector is None:
            raise InputError(
                f"vec2text decoder {name!r}: {self.steps} corrections need a corrector/ next to inversion/; or ask for 0 steps"
            )
        if beam > 1 and not self.steps:
            raise InputError(f"vec2text decoder {name!r}: a beam of {beam} needs corrections; ask for 1 step or more, or for a beam of 1")
        self.encoder = _own_encoder(name, checkpoint.encoder, device, encoder)
        self.recipe = self.encoder.recipe
        if checkpoint.config.max_seq_length > self.recipe.max_tokens:
            raise InputError(
                f"vec2text decoder {name!r}: trained on {checkpoint.config.max_seq_length} tokens, "
                f"but the encoder {self.recipe.name} reads {self.recipe.max_tokens}"
            )
        inversion, corrector = load_models(checkpoint, self.recipe.dim, corrector=self.steps > 0)

        from lvm.decoding.vec2text.loop import CorrectionLoop

        self._device = device
        self._loop = CorrectionLoop(inversion.to(device), corrector and corrector.to(device), self.encoder)

    def decode(self, vectors: np.ndarray) -> Sequence[Decoded]:
        """See `Decoder.decode`. The texts of a batch are generated together, until the longest is finished."""
        checked = require_vectors(vectors, self.recipe)
        # Each of a vector's beams has as many successors as there are beams.
        size = max(1, (CPU_BATCH if self._device == "cpu" else ACCELERATOR_BATCH) // self.beam**2)
        batches = (torch.from_numpy(checked[start : start + size]).to(self._device) for start in range(0, len(checked), size))
        return [decoded for batch in batches for decoded in self._loop.invert(batch, self.steps, self.beam)]


def _own_encoder(name: str, wanted: str, device: str, encoder: Encoder | None) -> Encoder:
    """`encoder` if its recipe is `wanted`, and that encoder loaded if it is None; `InputError` when it is another."""
    if encoder is None:
        return load_encoder(wanted, device)
    if encoder.recipe.name != wanted:  # it may be the same encoder under another name
        try:
            own = load_encoder(wanted, device)
        except InputError as error:
            raise InputError(f"vec2text decoder {name!r}: inverts the encoder {wanted}, not {encoder.recipe.name} ({error})") from error
        own.recipe.require_same(encoder.recipe, f"vec2text decoder {name!r}")
    return encoder
