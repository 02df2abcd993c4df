"""Settings of a training."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lvm.config.base import Config
from lvm.config.data import EXCLUDED_BEFORE
from lvm.config.registry import ARCHITECTURES, LOSS_TERMS


def _known_architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES.names())
        raise PydanticCustomError("architecture", "architecture {name} is not known: there are {known}", {"name": name, "known": known})
    return name


class ModelConfig(Config):
    """One predictor."""

    arch: Annotated[str, AfterValidator(_known_architecture)]
    """Architecture of the trunk, one of the registered ones."""

    dim: int = Field(gt=0)
    """Dimension of the embeddings; comes from the encoder recipe."""

    width: int = Field(256, ge=64, multiple_of=64)
    """Width of the trunk."""

    layers: int = Field(1, ge=1, le=24)
    """Depth of the trunk."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on the trunk's input, between its layers and on its output."""

    inner_dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout inside Mamba2's blocks, before their last projection. Without it they soon stop improving on validation text."""

    lags: int = Field(8, ge=1, le=64)
    """Number of last chunks that the heads' lag weights cover."""

    heads: Literal["closed_forms", "residual", "legacy"] = "closed_forms"
    """closed_forms: two heads that start from the strongest baselines. residual: two heads that start from lag weights, as in older models.
    legacy: the one unit-length linear head of the broken original. The last two are for comparison."""

    members: int = Field(1, ge=1, le=16)
    """Ensemble size. Members train in turn, a batch each, so N members need N times the epochs and the patience."""

    @property
    def name(self) -> str:
        """The architecture as reports call it, with its heads where these are not the default."""
        return self.arch if self.heads == "closed_forms" else f"{self.arch} ({self.heads})"


class LossConfig(Config):
    """Weights and settings of the loss terms. A weight of 0 switches a term off.

    A term that is registered from outside the package has its weight here too, under its name, 0 by default.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]] = Field(init=False)

    regression: float = Field(1.0, ge=0)
    """Weight of 1 - cosine(y_dec, target)."""

    norm: float = Field(0.1, ge=0)
    """Weight of the squared error of y_dec's norm, relative to the encoder's mean norm."""

    infonce: float = Field(0.1, ge=0)
    """Weight of the InfoNCE term on y_cos."""

    moments: float = Field(1e-3, ge=0)
    """Weight of matching y_dec's per-dimension mean and standard deviation to the encoder's."""

    variance: float = Field(1e-3, ge=0)
    """Weight of the hinge that keeps y_cos's per-dimension deviation near the targets'."""

    mse: float = Field(0.0, ge=0)
    """Weight of y_dec's squared error, averaged over dimensions: the only term of the broken original."""

    temperature: float = Field(0.07, gt=0)
    """Temperature of InfoNCE."""

    duplicate_cosine: float = Field(0.95, gt=0, le=1)
    """A negative whose cosine to the target exceeds this has the same content and is masked out."""

    @model_validator(mode="after")
    def _further_fields_are_registered_terms(self) -> Self:
        for name in self.__pydantic_extra__ or {}:
            if name not in LOSS_TERMS:
                known = ", ".join(dict.fromkeys([*type(self).model_fields, *LOSS_TERMS]))
                raise PydanticCustomError("unknown_term", "unknown loss term {name}", {"name": name, "known": known})
        return self

    def weight(self, term: str) -> float:
        """Weight of a registered term."""
        return float(getattr(self, term, 0.0))

    def weights(self) -> dict[str, float]:
        """Weight of every registered term, in the registry's order."""
        return {name: self.weight(name) for name in LOSS_TERMS}


class SamplerConfig(Config):
    """Batches of document stretches."""

    stretches: int = Field(16, ge=1)
    """Stretches of documents in a batch."""

    length: int = Field(64, ge=2)
    """Most predicted positions in a stretch. A shorter document gives a shorter one."""

    anchors_per_document: int | None = Field(None, ge=1)
    """Most contrastive anchors per document and batch; null uses every position."""

    hard_negatives: int = Field(8, ge=0)
    """Extra negatives per stretch: chunks of the same document from outside the stretch."""


class TrainConfig(Config):
    """One training run."""

    model: ModelConfig
    """The predictor."""

    loss: LossConfig = LossConfig()
    """The loss terms."""

    sampler: SamplerConfig = SamplerConfig()
    """The batches."""

    epochs: int = Field(10, ge=1)
    """Most passes over the training chunks. Early stopping may end sooner."""

    patience: int = Field(3, ge=1)
    """Validations without improvement before training stops."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""

    weight_decay: float = Field(0.05, ge=0)
    """AdamW's decoupled weight decay, on matrices only."""

    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0; a cosine to 0 follows."""

    clip: float = Field(1.0, gt=0)
    """Global gradient norm above which gradients are scaled down."""

    average: float = Field(0.995, ge=0, lt=1)
    """Decay per step of the exponential moving average of the weights. The average is what is kept."""

    context_length: int = Field(8, ge=1, le=EXCLUDED_BEFORE)
    """Chunks of context at which models and baselines are compared. A longer context would hold chunks that the retrieval pool offers."""

    select_recall: float = Field(0.5, ge=0)
    """Weight of val/skill_recall_at_5, beside val/skill_cosine, in the choice of the best epoch."""

    eval_windows: int = Field(10_000, ge=100)
    """Size of the fixed retrieval pool. Its chunks are also the targets that are scored."""

    reverse: bool = False
    """Read documents from end to beginning: shows how much of the skill depends on the direction of reading."""

    seed: int = 0
    """Seed of initialisation, batches and dropout."""

    threads: int = Field(1, ge=1)
    """CPU threads. Part of a run's identity, since another number rounds differently."""
