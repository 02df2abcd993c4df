"""Every setting of the pipeline, typed, with its meaning under it.

Configurations are frozen and refuse unknown fields. They are printed at the start, logged with
the run and stored beside every checkpoint. Nothing here is unread.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lvm.errors import InputError

C = TypeVar("C", bound="Config")
Arch = Literal["lstm", "gru", "mamba2", "transformer", "amn"]


class Config(BaseModel):
    """Base of all configurations: immutable, no unknown field, docstrings as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ChunkerConfig(Config):
    """How text becomes chunks."""

    max_tokens: int = Field(64, ge=8, le=512)
    """Budget of a chunk in the encoder's tokens, special tokens not counted. 32 for vec2text's GTR pair."""

    language: str = Field("en", pattern="^[a-z]{2,3}$")
    """Language of the sentence splitter, as an ISO 639 code; one that it has no rules for is split by English ones."""


class SplitConfig(Config):
    """How documents are divided."""

    val: float = Field(0.1, gt=0, lt=0.5)
    """Share of document groups for validation: all choices are made there."""

    test: float = Field(0.1, gt=0, lt=0.5)
    """Share of document groups for testing: only reported."""

    min_shared: float = Field(0.2, gt=0, le=1)
    """Documents that share this much of their texts are one group and never divided."""


class ModelConfig(Config):
    """One predictor."""

    arch: Arch
    """Architecture of the trunk."""

    dim: int = Field(gt=0)
    """Dimension of the embeddings; comes from the encoder recipe."""

    width: int = Field(256, ge=64, multiple_of=64)
    """Width of the trunk."""

    layers: int = Field(1, ge=1, le=24)
    """Depth of the trunk."""

    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout on the trunk's input, between its layers and on its output."""

    inner_dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout inside Mamba2's blocks, before their last projection: without it they soon cease to improve on other text."""

    lags: int = Field(8, ge=1, le=64)
    """Chunks that the heads' lag weights reach back."""

    residual_share: float = Field(0.8, gt=0, le=1)
    """Share that counts, once training is over, of what the trunk adds to y_cos: a part of it holds for training documents alone."""

    heads: Literal["residual", "legacy"] = "residual"
    """Two residual heads on learned lag weights, or the one unit-length linear head of the broken original, to be compared with."""

    members: int = Field(1, ge=1, le=16)
    """Predictors that answer together, each taught by every so many-th batch: three of them want three times the epochs and patience."""

    @property
    def name(self) -> str:
        """The architecture, as reports call it: with its heads where these are not the default."""
        return self.arch if self.heads == "residual" else f"{self.arch} ({self.heads})"


class LossConfig(Config):
    """Weights and settings of the loss terms; a weight of 0 switches a term off."""

    regression: float = Field(1.0, ge=0)
    """Weight of 1 - cosine(y_dec, target)."""

    norm: float = Field(0.1, ge=0)
    """Weight of the squared error of y_dec's norm, relative to the encoder's mean norm."""

    infonce: float = Field(0.1, ge=0)
    """Weight of the InfoNCE term on y_cos."""

    both_directions: bool = False
    """Ask of each target too which context it follows, as CLIP does. It costs recall: nobody retrieves in that direction."""

    moments: float = Field(1e-3, ge=0)
    """Weight of matching y_dec's per-dimension mean and standard deviation to the encoder's."""

    variance: float = Field(1e-3, ge=0)
    """Weight of the hinge that keeps y_cos's per-dimension deviation near the targets'."""

    mse: float = Field(0.0, ge=0)
    """Weight of y_dec's squared error, averaged over dimensions: what the broken original was trained on."""

    temperature: float = Field(0.07, gt=0)
    """Temperature of InfoNCE."""

    duplicate_cosine: float = Field(0.95, gt=0, le=1)
    """A negative nearer to the target than this is the same content and is masked out."""


TERMS = ("regression", "norm", "infonce", "moments", "variance", "mse")
"""Names of the loss terms; `LossConfig` has the weight of each under its name."""


class SamplerConfig(Config):
    """Batches of document stretches."""

    stretches: int = Field(16, ge=1)
    """Stretches of documents in a batch."""

    length: int = Field(64, ge=2)
    """Predicted positions in a stretch; a shorter document gives what it has."""

    anchors_per_document: int | None = Field(None, ge=1)
    """Cap on contrastive anchors per document and batch; None uses every position."""

    hard_negatives: int = Field(8, ge=0)
    """Further chunks of the same document, outside its stretch, offered as negatives per stretch."""


class TrainConfig(Config):
    """One training run."""

    model: ModelConfig
    """The predictor."""

    loss: LossConfig = LossConfig()
    """The loss terms."""

    sampler: SamplerConfig = SamplerConfig()
    """The batches."""

    epochs: int = Field(10, ge=1)
    """Passes over the training chunks at most; early stopping may end sooner."""

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
    """Decay per step of the exponential moving average of the weights, which is what is kept."""

    context_length: int = Field(8, ge=1)
    """Chunks of context at which models and baselines are compared."""

    select_recall: float = Field(0.5, ge=0)
    """Weight of val/skill_recall_at_5 beside val/skill_cosine when the best epoch is chosen."""

    eval_windows: int = Field(10_000, ge=100)
    """Size of the fixed retrieval pool, whose chunks are also the targets that are scored."""

    reverse: bool = False
    """Read documents from their end to their beginning: what is learned so is told apart from what needs a direction."""

    seed: int = 0
    """Seed of initialisation, batches and dropout."""

    threads: int = Field(1, ge=1)
    """CPU threads. Part of the run's identity: another number rounds differently."""


class GateThresholds(Config):
    """Where each gate draws its line. The reasons are in the gates' docstrings."""

    chunk_order_warn: float = 0.02
    """Lead of adjacent over shuffled cosine under which `chunk_order` warns."""

    leaked_rows_warn: float = 0.02
    """Share of evaluation rows that stand in train at which `split_leakage` warns."""

    leaked_rows_fail: float = 0.10
    """Share at which it fails."""

    adjacent_duplicates: float = 0.02
    """Share of adjacent chunks with cosine > .98 at which `duplicates` fails."""

    pairing_difference: float = 0.05
    """Difference of mean cosine(last context, target) between splits at which `pairing` fails."""

    pairing_unique: float = 0.99
    """Share of windows with distinct keys under which `pairing` fails."""

    cosine_pairwise_margin: float = 0.25
    """How much y_cos's mean pairwise cosine may exceed the targets'."""

    cosine_sigma_ratio: float = 0.5
    """Least per-dimension deviation of y_cos over the targets'."""

    cosine_effective_rank: float = 0.3
    """Least effective rank of y_cos over the targets'."""

    decoder_pairwise_margin: float = 0.10
    """How much y_dec's mean pairwise cosine may exceed ridge's."""

    decoder_versus_ridge: float = 0.8
    """Least deviation and effective rank of y_dec over ridge's."""

    collapsed_pairwise: float = 0.95
    """Pairwise cosine above which any output has collapsed."""

    norm_ratio: float = 0.25
    """How far y_dec's mean norm may lie from the encoder's, as a share of it."""

    gradient_share: float = 0.01
    """Norm of a term's gradient, after its weight, over the largest term's under which `loss_balance` warns."""

    parity: float = 1e-4
    """Greatest absolute difference of golden predictions after a reload."""

    encoder_contract: float = 0.999
    """Least agreement of a stored vector with the decoder's own encoder, where both are of one dtype."""

    encoder_contract_other_dtype: float = 0.99
    """The same where the dtypes differ."""

    decoder_roundtrip: float = 0.80
    """Mean round-trip cosine of decoded true vectors under which decoding is reported as unavailable."""

    night_level: float = 0.001
    """Level of each nightly test for drift: three of them raise a false alarm about once a year, where 5 % would be one a week."""

    embedding_drift: float = 0.02
    """Share of the distance between two documents that the night may add to it before `embedding_drift` fails."""

    skill_drift: float = 0.25
    """Share of its own skill that the champion may lose before `skill_drift_...` fails."""

    own_numbers: float = 0.002
    """How far the champion's cosine on its own test documents may lie from what was recorded of it."""


def parse(kind: type[C], values: dict[str, Any]) -> C:
    """Validate `values` as `kind`; a wrong or unknown field becomes an `InputError` that names it."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentences(kind, error)) from error


def read_versioned(kind: type[C], file: Path, version: int, remedy: str) -> C:
    """The configuration in the JSON file `file`, whose field 'format' must be `version`.

    Raises `InputError`, which ends in `remedy`, when it is not JSON or of another format, and what `parse` raises.
    """
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {remedy}") from error
    if not isinstance(values, dict) or values.get("format") != version:
        raise InputError(f"{file}: field 'format' must be {version}; {remedy} with this version")
    return parse(kind, values)


RECIPES: dict[str, tuple[str, ...]] = {
    "residual": (),
    "legacy": (
        "model.heads=legacy", "loss.mse=1", "loss.regression=0", "loss.norm=0", "loss.infonce=0", "loss.moments=0", "loss.variance=0",
    ),
}  # fmt: skip
"""Settings that belong together, by name: the default, and the broken original that it is compared with."""


def train_config(arch: str, dim: int, settings: Sequence[str] = (), recipe: str = "residual") -> TrainConfig:
    """The configuration of `arch` by `recipe` with `settings` such as `model.width=512` laid over it.

    Raises `InputError` that names an unknown recipe or field, or a bad value.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r} is not known: give one of {', '.join(RECIPES)}")
    return parse(TrainConfig, overlay({"model": {"arch": arch, "dim": dim}}, [*RECIPES[recipe], *settings]))


def overlay(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values` with settings such as `model.width=512` put into it; JSON where they parse as such, else strings.

    Raises `InputError` when one is no setting.
    """
    for setting in settings:
        name, found, text = setting.partition("=")
        if not found:
            raise InputError(f"setting {setting!r}: expected FIELD=VALUE, such as model.width=512")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text
        *parents, last = name.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"setting {setting!r}: '{parent}' is a value, not a group of fields")
        place[last] = value
    return values


def _sentences(kind: type[Config], error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            parts.append(f"unknown field '{field}' (known: {', '.join(_group(kind, problem['loc'][:-1]).model_fields)})")
        else:
            parts.append(f"field '{field}': {problem['msg']}")
    return f"{kind.__name__}: " + "; ".join(parts)


def _group(kind: type[Config], path: tuple[int | str, ...]) -> type[Config]:
    """The configuration class that the dotted `path` leads to."""
    for name in path:
        inner = kind.model_fields[str(name)].annotation
        if not (isinstance(inner, type) and issubclass(inner, Config)):
            return kind
        kind = inner
    return kind
