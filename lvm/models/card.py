"""The card of a model or a decoder: what a reader must know before trusting it."""

from collections.abc import Mapping, Sequence

from lvm.config import TrainConfig
from lvm.data.manifest import Manifest
from lvm.data.names import first_names


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join([f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)])


def build_card(title: str, purpose: str, facts: Mapping[str, str], results: str, limits: str) -> str:
    """Markdown for `card.md`: what it is for, a table of facts, results (Markdown), and what it cannot do."""
    table = markdown_table(["", ""], list(facts.items()))
    return f"# {title}\n\n{purpose}\n\n{table}\n\n{results}\n\n{limits}\n"


def model_card(
    config: TrainConfig, data: Manifest, best: dict[str, float], history: list[dict[str, float]], skills: Mapping[str, str]
) -> str:
    """The card of a predictor: data, training, validation results. Test results are reported elsewhere.

    `best` and `skills`, which is `Evaluation.skill_lines()`, are of the model as it is kept, on validation documents.
    """
    names = ("val/cosine", *(f"val/skill_{metric}" for metric in skills), "val/selection")
    kept = {best["epoch"]: " (kept)"}
    rows = [[f"{int(line['epoch'])}{kept.get(line['epoch'], '')}", *(f"{line[name]:.4f}" for name in names)] for line in history]
    facts = {
        "encoder recipe": f"{data.recipe.name} ({data.recipe.id}), {data.recipe.dim} dimensions",
        "sources": ", ".join(first_names(data.sources)),
        "training data": f"{data.documents['train']} documents, {data.chunks['train']} chunks; dataset {data.digest[:12]}",
        "reads documents": "from end to beginning: it predicts the previous chunk" if config.reverse else "from beginning to end",
        "context length compared at": str(config.context_length),
        "trunk": f"{config.model.layers} x {config.model.width}, dropout {config.model.dropout}",
        "epochs": f"{len(history)} of at most {config.epochs}; kept epoch {int(best['epoch'])}",
    }
    return build_card(
        f"Latent vector model: {config.model.name}",
        "Reads the embeddings of a document's last chunks and predicts the next one: `y_dec` in the encoder's raw\n"
        "distribution, and `y_cos` of unit length for retrieval.",
        facts,
        "Skill on validation documents, the model as it is kept: the difference to the best baseline on the same windows, with its 95 %\n"
        "interval over documents. Where the interval includes 0, the model may be no better than that baseline.\n\n"
        + markdown_table(["metric", "skill"], list(skills.items()))
        + "\n\nBy epoch, without intervals, before the last choices (shares of the trunk, the successors' weight, whitening):\n\n"
        + markdown_table(["epoch", *names], rows),
        "Limits: the next chunk can only be predicted roughly. A cosine of 0.5 is near what the strongest baselines\n"
        "reach. Vectors of another encoder recipe are refused.",
    )
