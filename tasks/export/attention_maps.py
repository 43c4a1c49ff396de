"""Which tokens look at which: attention maps of one validation row, for the report.

Of modeling's models, which give them on request. Imports torch only inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.serving.heads import Ids

MAX_TOKENS = 24
"""Shown of a text."""
DIGITS, CANDIDATES = 4, 100


def of(model: Any, rows: Sequence[Ids], tokenizer: Any) -> dict[str, Any] | None:
    """The names of the tokens that look and of those looked at, and maps (layers, heads, l, s).

    Of an encoder-decoder, how what it writes looks at its source. None for a model of which there
    are none to be had.
    """
    import torch

    if not type(model).__module__.startswith("modeling."):
        return None
    # One that can be read: in pieces of letters, and neither short nor long.
    row = min(
        rows[:CANDIDATES],
        key=lambda one: (
            sum(not tokenizer.decode([token]).isascii() for token in one[:MAX_TOKENS].tolist()),
            abs(len(one) - MAX_TOKENS),
        ),
    )[:MAX_TOKENS]
    ids = torch.from_numpy(row)[None].to(model.device)
    given: dict[str, Any] = {"input_ids": ids}
    looking = looked_at = row.tolist()
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            written = model.generate(ids, max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False)
            given["decoder_input_ids"] = written[:, :-1]
            looking = written[0, 1:].tolist()  # each token by what it was chosen from
        found = model(**given, output_attentions=True)
    maps = found.cross_attentions if model.config.is_encoder_decoder else found.attentions
    shares = np.stack([layer[0].float().cpu().numpy() for layer in maps])
    return {
        "looking": [tokenizer.decode([one]) for one in looking],
        "looked_at": [tokenizer.decode([one]) for one in looked_at],
        "shares": shares.round(DIGITS).tolist(),
    }
