"""Thresholds of the gates. The reason for each stands in its gate's docstring."""

from pydantic import Field

from lvm.config.base import Config


class GateThresholds(Config):
    """Thresholds of the gates."""

    chunk_order_warn: float = Field(0.02, ge=0, le=2)
    """`chunk_order` warns when adjacent chunks lead shuffled ones by less than this cosine."""

    documents_without_order: float = Field(0.3, ge=0, le=1)
    """`chunk_order` fails when surely more than this share of the documents of 20 or more sentences look shuffled."""

    order_reach: float = Field(0.2, ge=-1, le=1)
    """`chunk_order` fails when sentences 5 to 10 apart surely have less than this share of the lead of neighbours over those further apart.
    Addresses have .38. Lower it for documents of unconnected entries, such as a glossary."""

    leaked_rows_warn: float = Field(0.02, ge=0, le=1)
    """`split_leakage` warns above this share of evaluation chunks that also stand in train."""

    leaked_rows_fail: float = Field(0.10, ge=0, le=1)
    """`split_leakage` fails above this share, boilerplate left out."""

    copied_documents: float = Field(0.02, ge=0, le=1)
    """`split_leakage` fails when more than this share of a split's chunks is in documents that train mostly holds."""

    adjacent_duplicates: float = Field(0.02, ge=0, le=1)
    """`duplicates` fails when surely more than this share of adjacent chunks has a cosine over .98."""

    repeated_text: float = Field(0.1, ge=0, le=1)
    """`duplicates` fails when more than this share of the chunks is in passages of five chunks or more that occur again."""

    unreadable_chunks: float = Field(0.02, ge=0, le=1)
    """`readable` fails when more than this share of the chunks has the vector of another text or mostly unknown tokens."""

    pairing_unique: float = Field(0.99, ge=0, le=1)
    """`pairing` fails when a smaller share of windows has distinct keys."""

    misplaced_chunks: float = Field(0.08, ge=0, le=1)
    """`pairing` fails when it looks as if surely more than this share of the chunks had been exchanged; it warns above half of it."""

    cosine_pairwise_margin: float = Field(0.25, ge=0, le=2)
    """Most by which y_cos's mean pairwise cosine may exceed the targets'."""

    cosine_sigma_ratio: float = Field(0.5, ge=0)
    """Least per-dimension deviation of y_cos over the targets'."""

    cosine_effective_rank: float = Field(0.3, ge=0)
    """Least effective rank of y_cos over the targets'."""

    decoder_pairwise_margin: float = Field(0.10, ge=0, le=2)
    """Most by which y_dec's mean pairwise cosine may exceed ridge's."""

    decoder_versus_ridge: float = Field(0.8, ge=0)
    """Least deviation and effective rank of y_dec over ridge's."""

    collapsed_pairwise: float = Field(0.95, ge=-1, le=1)
    """Mean pairwise cosine above which an output counts as collapsed."""

    norm_ratio: float = Field(0.25, ge=0)
    """Most by which y_dec's mean norm may differ from the encoder's, as a share of it."""

    gradient_share: float = Field(0.01, ge=0, le=1)
    """`loss_balance` warns when a weighted term's gradient norm is under this share of the largest term's."""

    parity: float = Field(1e-4, ge=0)
    """Greatest absolute difference of golden predictions after a reload."""

    encoder_contract: float = Field(0.999, ge=-1, le=1)
    """Least agreement of a stored vector with the encoder's, where both have one dtype."""

    encoder_contract_other_dtype: float = Field(0.99, ge=-1, le=1)
    """Least agreement where the dtypes differ."""

    decoder_roundtrip: float = Field(0.80, ge=-1, le=1)
    """Decoding is reported as unavailable when the mean round-trip cosine of decoded true vectors is lower."""

    night_level: float = Field(0.001, ge=0, le=1)
    """Significance level of `embedding_drift`, of the four `skill_drift` together and of `night_skill`: about one false alarm a year."""

    embedding_drift: float = Field(0.02, ge=0)
    """`embedding_drift` fails when new documents add more than this share to the mean distance of two documents."""

    skill_drift: float = Field(0.25, ge=0)
    """The `skill_drift` gates fail when the champion loses more than this share of a skill."""

    own_numbers: float = Field(0.002, ge=0)
    """Most by which the champion's metrics on its own test documents may differ from those recorded at training."""
