"""Gate: chunks are in reading order."""

import numpy as np
import torch

from lvm.config import GATES, GateThresholds
from lvm.data.dataset import Dataset
from lvm.evaluation.intervals import MIN_DOCUMENTS
from lvm.gates.data.order import LAGS, MIDDLE, TESTED_SENTENCES, order_of
from lvm.gates.data.rows import CPU
from lvm.gates.result import GateResult, gate_result


@GATES.register("chunk_order", stage="data", nightly=True)
def chunk_order(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> GateResult:
    """Chunks are in reading order: neighbouring sentences are more alike than those of a random order, or ordered in another way.

    Fails when no order is visible: neighbouring sentences are not more alike than chance allows in random orders of these documents,
    sentences 5 to 10 apart no more than those further apart, and of the documents that are long enough to be tested one by one no more
    are in order than chance finds in shuffled ones. Fails as well

    - when there are too few documents for an interval;
    - when surely (at 99 %) more than `documents_without_order` of the tested ones are shuffled;
    - when the order surely ends after a few sentences, as it does where paragraphs were shuffled: at 5 to 10 sentences less than
      `order_reach` of the lead is left;
    - when the stored positions of a document are not 0, 1, 2, ..., so that a window would skip chunks.

    Warns below `chunk_order_warn`.
    """
    gaps = np.flatnonzero(dataset.chunk_index != np.arange(dataset.n_rows) - dataset.starts[dataset.row_doc])
    order = order_of(dataset)
    lead = order.lead
    if len(gaps):
        names = sorted({dataset.doc_ids[d] for d in dataset.row_doc[gaps[:200]]})[:5]
        reason = f"chunk_index is not 0, 1, 2, ... in {names}, so that windows would skip chunks or cross documents"
        return gate_result("chunk_order", lead.value, 0.0, True, reason, "extract again")
    if not order.profile:
        reason = f"no document has more than {LAGS} sentences, too few to tell their order from a shuffle"
        return gate_result("chunk_order", lead.value, 0.0, True, reason, "give longer documents")
    share, least = order.shuffled()
    shown = ", ".join(f"{value:.3f}" for value in order.profile)
    reason = (
        f"neighbouring sentences lead a random order by {lead}; lags 1-{LAGS}: {shown}; "
        f"rho(1) - rho({LAGS}) = {order.profile[0] - order.profile[-1]:.3f}"
    )
    if order.tested:
        reason += f"; about {share:.0%} of {order.tested} documents of {TESTED_SENTENCES} or more sentences look shuffled"
    lost = lead.low is None or not order.visible()
    partly = least > limits.documents_without_order
    paragraphs = order.reach(less=limits.order_reach).below_zero()
    remedy = "check how the text was ingested, or give more documents"
    if lead.low is None and lost:
        remedy = f"give {MIN_DOCUMENTS} or more documents of more than {LAGS} sentences"
    elif lost:
        reason += ". The order of chunks was lost, or there are too few documents to show it"
    elif partly:
        reason += f". That is surely more than {limits.documents_without_order:.0%}: the order of some documents was lost"
    elif paragraphs:
        reason += f". The order ends after a few sentences: those {LAGS} to {MIDDLE} apart lead those further apart by {order.reach()} only"
        remedy = "check that paragraphs were read in their order; documents of unconnected entries are better given entry by entry"
    failed = lost or partly or paragraphs
    return gate_result("chunk_order", lead.value, 0.0, failed, reason, remedy, lead.value < limits.chunk_order_warn)
