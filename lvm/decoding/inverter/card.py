"""The card of a decoder: what a reader must know before trusting its texts."""

from collections.abc import Mapping, Sequence

from lvm.data.dataset import Manifest
from lvm.decoding.inverter.config import DecoderTrainConfig
from lvm.decoding.inverter.holdout import TrainingTexts


def decoder_card(
    config: DecoderTrainConfig,
    data: Manifest,
    hold_out: Sequence[Manifest],
    found: TrainingTexts,
    measured: Mapping[str, float],
    steps: int,
) -> str:
    """Markdown for `card.md`."""
    model = config.model
    held = ", ".join(f"{'+'.join(m.sources)} ({m.digest[:12]})" for m in (data, *hold_out))
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in measured.items())
    return f"""# Inverter of {data.recipe.name}

Writes the text that an embedding may have come from, and corrects it by embedding it again
(the method of Morris et al. 2023, arXiv 2310.06816).

| | |
|---|---|
| encoder recipe | {data.recipe.name} ({data.recipe.id}), {data.recipe.dim} dimensions |
| network | T5, width {model.width}, {model.encoder_layers} + {model.decoder_layers} layers, vocabulary {model.vocabulary} |
| longest text | {model.max_tokens} tokens of its own tokenizer |
| trained on | {len(found.texts)} chunks of {", ".join(data.sources)} (training documents of dataset {data.digest[:12]}) |
| never seen | validation and test texts of {held}: {found.dropped_documents} documents and {found.dropped_texts} further texts left out |
| training | {steps} steps of {config.batch} texts, {config.rounds} rounds of {config.texts} texts |

On validation texts, of all lengths, at the end of training:

| | |
|---|---|
{rows}

Limits: a text longer than the above is cut; a vector that no text has, such as a prediction,
decodes to something near it and rather bland. Vectors of another encoder recipe are refused.
"""
