"""A rollout reads its own words, shows a real chunk beside them, and does not depend on being shown one."""

import numpy as np
import pytest
import torch

from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.generate import GeneratedChunk, generate
from lvm.decoding.neighbours import ChunkLibrary
from lvm.errors import InputError
from lvm.models.checkpoint import Checkpoint
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder

CPU = torch.device("cpu")
STEPS = 4


@pytest.fixture(scope="module")
def context(dataset: Dataset) -> np.ndarray:
    """Rows of a validation document's beginning."""
    return dataset.rows("val")[:5]


@pytest.fixture(scope="module")
def rollout(dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder, context: np.ndarray) -> list[GeneratedChunk]:
    """Some steps with a library of all documents."""
    library = ChunkLibrary(dataset, "all", CPU)
    texts = dataset.texts(context)
    return generate(checkpoint, LookupDecoder(dataset, encoder), texts, encoder.encode(texts), STEPS, library)


def test_each_step_continues_what_was_written_before(
    rollout: list[GeneratedChunk], dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder, context: np.ndarray
) -> None:
    texts, decoder = dataset.texts(context), LookupDecoder(dataset, encoder)
    for step in rollout:
        with torch.inference_mode():
            y_dec = checkpoint.model(torch.from_numpy(encoder.encode(texts))[None], return_both=True)[0].numpy()
        (expected,) = decoder.decode(y_dec)
        assert step.inverted.text == expected.text
        assert step.inverted.roundtrip_cosine == pytest.approx(expected.roundtrip_cosine, abs=2e-3)
        texts.append(step.inverted.text)


def test_no_real_chunk_of_the_context_is_shown_and_none_twice(rollout: list[GeneratedChunk], dataset: Dataset, context: np.ndarray) -> None:
    shown = [step.nearest.text for step in rollout if step.nearest]
    assert len(shown) == len(set(shown)) == STEPS
    assert not set(shown) & set(dataset.texts(context))


def test_a_library_changes_nothing_that_is_written(
    rollout: list[GeneratedChunk], dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder, context: np.ndarray
) -> None:
    texts = dataset.texts(context)
    alone = generate(checkpoint, LookupDecoder(dataset, encoder), texts, encoder.encode(texts), STEPS)
    assert [step.nearest for step in alone] == [None] * STEPS
    assert [step.inverted for step in alone] == [step.inverted for step in rollout]


def test_the_model_reads_no_more_chunks_than_it_was_trained_on(dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder) -> None:
    limit, read = checkpoint.config.train.sampler.length, []
    hook = checkpoint.model.register_forward_pre_hook(lambda _, given: read.append(given[0].numpy().copy()))
    rows = np.arange(limit - 1)
    generate(checkpoint, LookupDecoder(dataset, encoder), dataset.texts(rows), np.array(dataset.vectors[rows]), 3)
    hook.remove()
    assert [context.shape[1] for context in read] == [limit - 1, limit, limit]
    assert np.array_equal(read[2][0, : limit - 2], dataset.vectors[rows[1:]]), "the oldest is left out"


def test_the_last_text_is_not_encoded_for_a_step_that_never_comes(
    dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, vectors, encoded = ConstantDecoder(encoder), np.array(dataset.vectors[:2]), []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: encoded.append(list(texts)) or encode(texts))
    generate(checkpoint, decoder, dataset.texts(np.arange(2)), vectors, 3)
    assert len(encoded) == 3 + 2, "once a step by the decoder, and once for each step that follows another"


def test_steps_are_json(rollout: list[GeneratedChunk]) -> None:
    step = rollout[0].as_json()
    assert set(step) == {"nearest", "inverted"}
    assert set(step["inverted"]) == {"text", "roundtrip_cosine", "steps"}
    assert set(step["nearest"]) == {"text", "doc_id", "chunk_index", "source", "cosine"}


def test_a_decoder_of_another_recipe_is_refused(dataset: Dataset, checkpoint: Checkpoint, encoder: Encoder) -> None:
    decoder = LookupDecoder(dataset, encoder)
    decoder.recipe = encoder.recipe.model_copy(update={"normalize": False})
    with pytest.raises(InputError, match="normalize: True against False"):
        generate(checkpoint, decoder, ["x"], encoder.encode(["x"]), 1)
