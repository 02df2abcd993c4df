"""A continuation encodes only what the model reads, and each text only once."""

from collections.abc import Sequence

import numpy as np
import pytest

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.serving.loaded_model import LoadedModel
from lvm.serving.requests import FieldError
from lvm.serving.text import TextPipeline
from tests.support.lookup_decoder import written

CONTEXT = ["The finances are sound.", "Trade has grown."]


class RecordingEncoder:
    """Records the texts that are encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.recipe, self.tokenizer, self.dtype = encoder, encoder.recipe, encoder.tokenizer, encoder.dtype
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        return self._encoder.encode(texts)


class NumberingDecoder:
    """Decodes into a new text each time, with the plain encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self.recipe, self.encoder, self._calls = encoder.recipe, encoder, 0

    def decode(self, vectors: np.ndarray):
        self._calls += 1
        return written(self.encoder, [f"Decoded {self._calls}."], vectors)


@pytest.fixture()
def recording(encoder: Encoder) -> RecordingEncoder:
    return RecordingEncoder(encoder)


@pytest.fixture()
def pipeline(recording: RecordingEncoder, encoder: Encoder, text_pipeline: TextPipeline) -> TextPipeline:
    return TextPipeline(recording, NumberingDecoder(encoder), text_pipeline.library)


@pytest.mark.parametrize("neighbours", [0, 4])
def test_single_step_encodes_the_context_alone(neighbours, pipeline, model, recording):
    (step,) = pipeline.continue_text(model, CONTEXT, 1, False, neighbours)
    assert recording.encoded == CONTEXT and len(step.neighbours) == neighbours


def test_context_beyond_what_the_model_reads_is_not_encoded(pipeline, model: LoadedModel, recording, dataset: Dataset):
    texts = dataset.texts(np.arange(model.max_context + 3))
    (step,) = pipeline.continue_text(model, texts, 1, False, 0)
    assert recording.encoded == texts[3:] and len(step.similarities) == model.max_context


def test_continuation_by_real_chunks_takes_their_vectors_from_the_dataset(pipeline, model, recording, encoder):
    steps = pipeline.continue_text(model, CONTEXT, 3, False, 2)
    assert recording.encoded == CONTEXT
    texts = [*CONTEXT, *(step.neighbours[0].text for step in steps[:2])]
    expected = model.predict(encoder.encode(texts)[None])
    cosines = encoder.encode(texts) @ expected.decoder[0] / np.linalg.norm(expected.decoder[0])
    np.testing.assert_allclose(steps[2].similarities, cosines, atol=1e-4)


def test_continuation_by_decoded_text_encodes_each_text_that_a_step_continues(pipeline, model, recording):
    pipeline.continue_text(model, CONTEXT, 3, True, 1)
    assert recording.encoded == [*CONTEXT, "Decoded 1.", "Decoded 2."]


@pytest.mark.parametrize("text", ["สวัสดีตอนเช้า", "🐱🐱🐱", "0123456789abcdef" * 75])
def test_text_that_the_encoder_cannot_read_is_refused_by_field(pipeline, model, text):
    for ask in (
        lambda: pipeline.encode(["Trade has grown.", text], "texts"),
        lambda: pipeline.continue_text(model, [*CONTEXT, text], 1, False, 0),
    ):
        with pytest.raises(
            FieldError, match=r"minilm reads no .*the text is mostly unknown tokens to it, as '.*: write in a language"
        ) as caught:
            ask()
        assert caught.value.loc[0] in ("texts", "context") and caught.value.loc[1] in (1, 2)


def test_served_text_is_cleaned_as_documents_are(pipeline, recording):
    pipeline.encode(["Trade\u200b has gr\u00adown.\0"], "texts")
    assert recording.encoded == ["Trade has grown."]
    with pytest.raises(FieldError, match="empty"):
        pipeline.encode(["\u200b\ufeff"], "texts")
