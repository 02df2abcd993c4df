"""The model card: what a reader must know before trusting a model."""

from lvm.config import TrainConfig
from lvm.data.dataset import Manifest


def model_card(config: TrainConfig, data: Manifest, best: dict[str, float], history: list[dict[str, float]]) -> str:
    """Markdown for `card.md`: data, training, validation history. Test results are reported elsewhere."""
    names = ("val/cosine", "val/skill_cosine", "val/recall_at_5", "val/skill_recall_at_5", "val/selection")
    rows = "\n".join(
        f"| {int(line['epoch'])}{' (kept)' if line is best else ''} | " + " | ".join(f"{line[n]:.4f}" for n in names) + " |"
        for line in history
    )
    direction = "from their end to their beginning: it predicts the chunk before" if config.reverse else "from beginning to end"
    return f"""# Latent vector model: {config.model.name}

Reads the embeddings of a document's last chunks and predicts the next one: `y_dec` in the
encoder's raw distribution, `y_cos` of unit length for retrieval.

| | |
|---|---|
| encoder recipe | {data.recipe.name} ({data.recipe.id}), {data.recipe.dim} dimensions |
| sources | {", ".join(data.sources)} |
| training data | {data.documents["train"]} documents, {data.chunks["train"]} chunks; dataset {data.digest[:12]} |
| reads documents | {direction} |
| context length compared at | {config.context_length} |
| trunk | {config.model.layers} x {config.model.width}, dropout {config.model.dropout} |
| epochs | {len(history)} of {config.epochs} at most; kept epoch {int(best["epoch"])} |

Validation, by epoch (skill is the difference to the best baseline on the same windows):

| epoch | {" | ".join(names)} |
|---|{"---|" * len(names)}
{rows}

Limits: an honest prediction of the next chunk is far from certain; a cosine of 0.5 is near what
the strongest baselines reach. Vectors of another encoder recipe are refused.
"""
