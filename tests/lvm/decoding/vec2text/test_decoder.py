"""A vec2text decoder decodes with the library's own loop, keeps the best text, and refuses what it cannot decode."""

import shutil

import numpy as np
import pytest
import torch

from lvm.data import encoders as encoder_module
from lvm.decoding.load import load_decoder
from lvm.decoding.vec2text.decoder import Vec2TextDecoder
from lvm.decoding.vec2text.repairs import import_vec2text
from lvm.errors import InputError
from tests.support.vec2text_models import copied, cosines, make_trained


def candidates_of(decoder: Vec2TextDecoder, monkeypatch) -> list[list[str]]:
    """Every text that the decoder's loop goes on to consider, a list a step."""
    seen = []
    offer = decoder._loop._offer
    monkeypatch.setattr(decoder._loop, "_offer", lambda texts: (seen.append(texts), offer(texts))[1])
    return seen


# Decoding with models that were trained here


def test_zero_step_gives_the_inversion_models_text_and_its_true_cosine(trained):
    decoded = trained.decoder(steps=0).decode(trained.vectors)
    assert [one.steps for one in decoded] == [0] * len(trained.texts)
    truth = cosines(trained.encoder.encode([one.text for one in decoded]), trained.vectors)
    np.testing.assert_allclose([one.roundtrip_cosine for one in decoded], truth, atol=5e-3)
    assert sum(one.text == text for one, text in zip(decoded, trained.texts, strict=True)) >= 3, "some are recovered word for word"


def test_loaded_decoder_uses_the_weights_that_were_trained(trained):
    for losses in trained.losses:
        assert losses[-1] < 0.5 * losses[0], "both models learned"
    learned = trained.decoder(steps=0).decode(trained.vectors)
    random = Vec2TextDecoder(str(trained.untrained), "cpu", 0, trained.encoder).decode(trained.vectors)
    assert np.mean([one.roundtrip_cosine for one in learned]) > np.mean([one.roundtrip_cosine for one in random]) + 0.2
    assert not {one.text for one in learned} & {one.text for one in random}


def test_three_corrections_improve_the_text_and_never_return_a_worse_step(trained, monkeypatch):
    decoder = trained.decoder(steps=3)
    seen = candidates_of(decoder, monkeypatch)
    decoded = decoder.decode(trained.vectors)
    assert [len(texts) for texts in seen] == [len(trained.texts)] * 4, "a hypothesis and three corrections"
    by_step = np.stack([cosines(trained.encoder.encode(texts), trained.vectors) for texts in seen])
    found = np.array([one.roundtrip_cosine for one in decoded])
    np.testing.assert_allclose(found, by_step.max(0), atol=5e-3)
    assert found.mean() > by_step[0].mean() + 0.1, "the corrections found better texts than the first"
    for one, texts in zip(decoded, zip(*seen, strict=True), strict=True):
        assert one.text == texts[one.steps]


def test_sequence_beam_considers_more_texts_and_returns_the_best_of_them(trained, monkeypatch):
    decoder = trained.decoder(steps=3, beam=2)
    seen = candidates_of(decoder, monkeypatch)
    decoded = decoder.decode(trained.vectors[:5])
    assert [len(texts) for texts in seen] == [5, 10, 20, 20], "two beams, and two successors of each"
    best = [cosines(trained.encoder.encode(texts), trained.vectors[:5].repeat(len(texts) // 5, axis=0)).reshape(5, -1) for texts in seen]
    np.testing.assert_allclose([one.roundtrip_cosine for one in decoded], np.concatenate(best, axis=1).max(1), atol=5e-3)


def test_text_of_a_vector_does_not_depend_on_the_others(trained, monkeypatch):
    decoder = trained.decoder(steps=1)
    together = [one.text for one in decoder.decode(trained.vectors[:6])]
    monkeypatch.setattr("lvm.decoding.vec2text.decoder.CPU_BATCH", 4)
    assert [one.text for one in decoder.decode(trained.vectors[:6])] == together
    assert decoder.decode(trained.vectors[:0]) == []


def test_loop_and_embedding_are_the_librarys_own(gtr, texts, tmp_path, monkeypatch):
    """`vec2text.load_corrector`, with its trainers and an embedder of its own, gives the same texts step by step."""
    vec2text = import_vec2text()
    # So few texts are soon known by heart: the inversion model is left something to correct.
    trained = make_trained(gtr, texts[:8], tmp_path, steps=(10, 50))
    ours = trained.decoder(steps=3)
    seen = candidates_of(ours, monkeypatch)
    ours.decode(trained.vectors)
    monkeypatch.setattr("evaluate.load", lambda name: None)  # its trainers fetch their metrics from the hub
    monkeypatch.chdir(tmp_path)  # and make a folder where they are
    inversion = ours._loop.inversion_trainer.model
    inversion.embedder, inversion.embedder_tokenizer = gtr._model.encoder, gtr._tokenize
    theirs = vec2text.load_corrector(inversion, ours._loop.model)
    vectors = torch.from_numpy(trained.vectors)
    assert vec2text.invert_embeddings(vectors, theirs) == [one.text for one in trained.decoder(steps=0).decode(trained.vectors)]
    for steps in (1, 3):
        assert vec2text.invert_embeddings(vectors, theirs, num_steps=steps) == seen[steps]
    assert len({tuple(texts) for texts in seen}) > 1, "the steps differ, or this shows nothing"


# Settings and bad input


def test_steps_default_to_twenty_with_a_corrector_and_to_none_without(folder, gtr, tmp_path):
    alone = copied(folder, tmp_path / "alone")
    shutil.rmtree(alone / "corrector")
    assert load_decoder(f"vec2text:{folder}", encoder=gtr).steps == 20
    decoder = load_decoder(f"vec2text:{alone}", encoder=gtr)
    assert decoder.steps == 0 and decoder.recipe == gtr.recipe and decoder.encoder is gtr
    assert len(decoder.decode(gtr.encode(["Peace."]))) == 1


def test_encoder_of_another_recipe_is_refused(folder, encoder):
    with pytest.raises(InputError, match=r"encoder recipe gtr-t5-base .* is not minilm .*dim: 768 against 384"):
        load_decoder(f"vec2text:{folder}", encoder=encoder)


def test_encoder_of_another_recipe_is_refused_also_where_the_right_one_cannot_be_had(folder, encoder, monkeypatch):
    monkeypatch.setattr(encoder_module, "GTR_HUB_NAME", "/no/such/folder")
    with pytest.raises(InputError, match="inverts the encoder gtr-t5-base, not minilm"):
        load_decoder(f"vec2text:{folder}", encoder=encoder)


def test_vectors_that_cannot_be_decoded_are_refused(folder, gtr):
    decoder = load_decoder(f"vec2text:{folder}", steps=0, encoder=gtr)
    with pytest.raises(InputError, match=r"expected \[n, 768\]"):
        decoder.decode(np.ones((2, 384), np.float32))
    vectors = np.ones((3, 768), np.float32)
    vectors[1, 5] = np.nan
    with pytest.raises(InputError, match=r"vectors \[1\] of 3 are zero, NaN or infinite"):
        decoder.decode(vectors)


def test_corrections_without_a_corrector_are_refused(folder, gtr, tmp_path):
    shutil.copytree(folder, tmp_path / "alone", ignore=shutil.ignore_patterns("corrector"))
    with pytest.raises(InputError, match="3 corrections need a corrector/ next to inversion/"):
        load_decoder(f"vec2text:{tmp_path / 'alone'}", steps=3, encoder=gtr)


@pytest.mark.parametrize(
    ("steps", "beam", "message"), [(-1, 1, "-1 steps"), (2, 0, "a beam of 0"), (0, 4, "a beam of 4 needs corrections")]
)
def test_impossible_steps_and_beams_are_refused(folder, gtr, steps, beam, message):
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(folder), "cpu", steps, gtr, beam)
