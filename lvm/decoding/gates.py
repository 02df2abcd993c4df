"""Gates on a decoder: does it belong to the stored vectors, and can it read real ones?

They are the decoder's verdicts, not the model's: none bars a model from promotion.
`encoder_contract` refuses to decode at all, since every text would be of another space;
`decoder_abc`, and `decoder_ceiling` where there is no model yet, make the report say that decoding
is unavailable.
"""

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.decoding.arms import Arms
from lvm.decoding.protocol import Decoder
from lvm.gates.data import reencoded
from lvm.gates.result import GateResult, gate_result


def encoder_contract(dataset: Dataset, decoder: Decoder, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The decoder's own encoder gives the stored chunks their stored vectors again.

    A sample of rows is embedded anew. Agreement is the cosine times the ratio of the shorter norm to
    the longer: a cosine alone would not see that one side makes unit length. The value is the worst
    row's. Vectors of one dtype must agree to .999; another dtype is allowed to round, to .99.

    Raises `InputError`, before anything is embedded, when the declared recipes differ.
    """
    decoder.recipe.require_same(dataset.manifest.recipe, f"the decoder, on dataset {dataset.path}")
    decoder.recipe.require_same(decoder.encoder.recipe, "the decoder's own encoder")
    problem = "The stored vectors are of another encoder than the decoder reads"
    remedy = "extract the documents again, or give the decoder that was trained on theirs"
    return reencoded("encoder_contract", "the decoder's encoder", dataset, decoder.encoder, problem, remedy, limits)


def decoder_abc(arms: Arms, limits: GateThresholds = GateThresholds()) -> GateResult:
    """The decoder reads real vectors (arm A): only then do its texts say anything about a model.

    The value is A's mean round-trip cosine. The reason sets B and C beside it, so that the reader
    sees who is to blame: A low, the decoder; A high and C's text far from the true next chunk, the model.
    """
    a, c = arms.roundtrip("A"), arms.roundtrip("C")
    b = f"{arms.roundtrip('B'):.3f}" if "B" in arms.decoded else "the same, the recipe makes unit length"
    about = {name: interval.value for name, interval in arms.about().items()}
    failed = not a >= limits.decoder_roundtrip
    reason = (
        f"round trip of A {a:.3f}, B {b}, C {c:.3f}; cosine of the text to the true next chunk: A {about['A']:.3f}, C {about['C']:.3f}, "
        f"nearest real chunk {about['nearest']:.3f}, last chunk {about['copy_last']:.3f}"
    )
    if failed:
        reason += ". Decoding is unavailable, and the decoder is to blame, not the model"
    else:
        reason += ". The decoder reads real vectors: what C lacks beside A is the model's"
    return gate_result("decoder_abc", a, limits.decoder_roundtrip, failed, reason, "train one on such text with 'lvm train-decoder'")


def decoder_ceiling(roundtrip: float, texts: int, limits: GateThresholds = GateThresholds()) -> GateResult:
    """A decoder by itself reads real vectors: `roundtrip` is the mean of arm A, on `texts` texts that it never saw.

    The line is that of `decoder_abc`, which a decoder under it will not pass with any model.
    """
    failed = not roundtrip >= limits.decoder_roundtrip
    reason = f"{texts} texts that were never learned from come back with a round-trip cosine of {roundtrip:.3f}"
    if failed:
        reason += ". Decoding with it is reported as unavailable"
    remedy = "train it longer (rounds), on more text (texts), or wider (model.width)"
    return gate_result("decoder_ceiling", roundtrip, limits.decoder_roundtrip, failed, reason, remedy)
