"""The card of an inverter: what a reader must know before trusting its texts."""

from collections.abc import Mapping, Sequence

from lvm.config import DecoderTrainConfig
from lvm.data.manifest import Manifest
from lvm.data.names import first_names
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.models.card import build_card, markdown_table


def decoder_card(
    config: DecoderTrainConfig,
    data: Manifest,
    hold_out: Sequence[Manifest],
    found: TrainingTexts,
    measured: Mapping[str, float],
    steps: int,
) -> str:
    """Markdown for `card.md`; `measured` holds the validation metrics after the last round."""
    model = config.model
    held = ", ".join(f"{'+'.join(first_names(m.sources))} ({m.digest[:12]})" for m in (data, *hold_out))
    sources = ", ".join(first_names(data.sources))
    facts = {
        "encoder recipe": f"{data.recipe.name} ({data.recipe.id}), {data.recipe.dim} dimensions",
        "network": f"T5, width {model.width}, {model.encoder_layers} + {model.decoder_layers} layers, vocabulary {model.vocabulary}",
        "longest text": f"{model.max_tokens} tokens of its own tokenizer",
        "trained on": f"{len(found.texts)} chunks of {sources} (training documents of dataset {data.digest[:12]})",
        "never seen": f"validation and test texts of {held}: {found.dropped_documents} documents "
        f"and {found.dropped_texts} further texts were left out",
        "training": f"{steps} steps of {config.batch} texts, {config.rounds} rounds of {config.texts} texts",
    }
    results = markdown_table(["", ""], [[name, f"{value:.4f}"] for name, value in measured.items()])
    return build_card(
        f"Inverter of {data.recipe.name}",
        "Writes a text that a given embedding may have come from, embeds that text and corrects it\n"
        "(the method of Morris et al. 2023, arXiv 2310.06816).",
        facts,
        f"On validation texts of all lengths, at the end of training:\n\n{results}",
        "Limits: longer texts are cut. A vector that belongs to no text, such as a prediction, decodes to a bland\n"
        "text near it. Vectors of another encoder recipe are refused.",
    )
