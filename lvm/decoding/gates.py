"""Gates on a decoder: does it invert the stored vectors, and can it read real ones?

They check the decoder, not the model, so none of them keeps a model from being promoted. `encoder_contract`
refuses to decode at all, since every text would come from another vector space. `decoder_abc`, and
`decoder_ceiling` if there is no model yet, only make the report say that decoding is unavailable.
"""

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.decoding.arms import Arms
from lvm.decoding.protocol import Decoder
from lvm.gates.reencoding import reencoded
from lvm.gates.result import GateResult, gate_result


def encoder_contract(dataset: Dataset, decoder: Decoder, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The decoder's own encoder reproduces the stored vectors of a sample of chunks.

    Agreement is the cosine times the ratio of the shorter norm to the longer one, since a cosine alone does
    not notice when only one side has unit length. The value is that of the worst row. Vectors of the same
    dtype must agree to 0.999, those of different dtypes to 0.99.

    Raises `InputError` when the declared recipes differ, before anything is embedded.
    """
    decoder.recipe.require_same(dataset.manifest.recipe, f"the decoder, on dataset {dataset.path}")
    decoder.recipe.require_same(decoder.encoder.recipe, "the decoder's own encoder")
    problem = "The stored vectors come from another encoder than the decoder inverts"
    remedy = "extract the documents again, or give the decoder that was trained for their encoder"
    return reencoded("encoder_contract", "the decoder's encoder", dataset, decoder.encoder, problem, remedy, limits)


def decoder_abc(arms: Arms, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The decoder reads real vectors (arm A). Only then do its texts say anything about a model.

    The value is the mean round-trip cosine of A. The reason gives B and C too, so that a reader sees where
    the fault lies: with the decoder if A is low; with the model if A is high and C's text is far from the
    true next chunk.
    """
    a, c = arms.roundtrip("A"), arms.roundtrip("C")
    b = f"{arms.roundtrip('B'):.3f}" if "B" in arms.decoded else "the same, since the recipe normalises"
    truth = {name: interval.value for name, interval in arms.truth_cosines().items()}
    failed = not a >= limits.decoder_roundtrip
    reason = (
        f"round trip of A {a:.3f}, B {b}, C {c:.3f}; cosine of the text to the true next chunk: A {truth['A']:.3f}, C {truth['C']:.3f}, "
        f"nearest real chunk {truth['nearest']:.3f}, last chunk {truth['copy_last']:.3f}"
    )
    if failed:
        reason += ". Decoding is unavailable because of the decoder, not the model"
    else:
        reason += ". The decoder reads real vectors: what C lacks compared with A is due to the model"
    return gate_result("decoder_abc", a, limits.decoder_roundtrip, failed, reason, "train one on such text with 'lvm train-decoder'")


def decoder_ceiling(roundtrip: float, texts: int, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The decoder by itself reads real vectors; `roundtrip` is its mean round-trip cosine on `texts` texts that it never saw.

    The threshold is that of `decoder_abc`: a decoder that fails here fails there with any model.
    """
    failed = not roundtrip >= limits.decoder_roundtrip
    reason = f"{texts} texts that it was not trained on come back with a round-trip cosine of {roundtrip:.3f}"
    if failed:
        reason += ". Decoding with it is reported as unavailable"
    remedy = "train it longer (decoder.rounds), on more text (decoder.texts), or wider (decoder.model.width)"
    return gate_result("decoder_ceiling", roundtrip, limits.decoder_roundtrip, failed, reason, remedy)
