"""Encoders that people bring: any sentence-transformers folder gives the library's vectors, under a recipe that describes it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import LSTM, LayerNorm, Pooling, StaticEmbedding, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

from lvm.config import ChunkerConfig
from lvm.data.encoders import load_encoder, token_counts
from lvm.data.extract import extract, make_chunker
from lvm.data.sentence_transformer import NO_LIMIT
from lvm.errors import InputError
from tests.support.encoder_folders import TEXTS, WIDTH, bert, gpt, save_encoder, word_tokenizer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def library_vectors(folder: Path, prompt: str = "", texts: list[str] = TEXTS) -> np.ndarray:
    """The library's own vectors, each text alone."""
    model = SentenceTransformer(str(folder), device="cpu")
    if getattr(model.tokenizer, "pad_token", "") is None:
        model.tokenizer.pad_token = "[UNK]"  # as the library asks for, which pads even a text alone
    return np.concatenate([model.encode([text], prompt=prompt, show_progress_bar=False) for text in texts])


def described(name: str) -> tuple[str, bool, bool, str, int]:
    """What the recipe of an encoder says of its modules, and its dimension, after its vectors were compared with the library's."""
    encoder = load_encoder(name, dtype="float32")
    np.testing.assert_allclose(encoder.encode(TEXTS), library_vectors(Path(name.partition(":")[2])), atol=1e-5)
    recipe = encoder.recipe
    return recipe.pooling, recipe.dense, recipe.normalize, recipe.modules, recipe.dim


# Transformers


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [("cls", "cls"), ("max", "max"), ("weightedmean", "weightedmean"), ("lasttoken", "lasttoken"), (("mean", "max"), "mean+max")],
)
def test_every_pooling_gives_the_librarys_vectors(tmp_path, modes, pooling):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH, modes))
    assert described(name) == (pooling, False, False, "", WIDTH * len(pooling.split("+")))


def test_dense_layers_and_unit_length_are_described(tmp_path):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH), Dense(WIDTH, 24), Dense(24, 8), Normalize())
    assert described(name) == ("mean", True, True, "", 8)


def test_modules_that_the_fields_do_not_describe_are_named_in_their_order(tmp_path):
    first = bert(tmp_path / "bert")
    after = save_encoder(tmp_path / "after", first, Pooling(WIDTH), LayerNorm(WIDTH), Normalize())
    before = save_encoder(tmp_path / "before", first, Pooling(WIDTH), Normalize(), LayerNorm(WIDTH))
    assert described(after) == ("mean", False, True, "Transformer+Pooling+LayerNorm+Normalize", WIDTH)
    assert described(before) == ("mean", False, False, "Transformer+Pooling+Normalize+LayerNorm", WIDTH)
    one, other = (load_encoder(name).recipe for name in (after, before))
    assert one.weights_sha256 == other.weights_sha256 and one.id != other.id


def test_model_without_a_padding_token_is_read(tmp_path):
    name = save_encoder(tmp_path / "model", gpt(tmp_path / "gpt"), Pooling(WIDTH, "lasttoken"))
    assert described(name) == ("lasttoken", False, False, "", WIDTH)


def test_dense_layer_computes_in_bfloat16_too(tmp_path):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH), Dense(WIDTH, 8), Normalize())
    exact, rough = (load_encoder(name, dtype=dtype).encode(TEXTS) for dtype in ("float32", "bfloat16"))
    assert (exact * rough).sum(1).min() > 0.999 and not np.array_equal(exact, rough)


# Static embeddings


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_static_embedding_reads_texts_of_any_length(tmp_path, dtype):
    name = save_encoder(tmp_path / "model", StaticEmbedding(word_tokenizer(), embedding_dim=WIDTH), Normalize())
    encoder = load_encoder(name, dtype=dtype)
    long = " ".join(TEXTS * 200)
    expected = library_vectors(tmp_path / "model", texts=[*TEXTS, long])
    assert (encoder.encode([*TEXTS, long]) * expected).sum(1).min() > 0.999
    assert (encoder.recipe.pooling, encoder.recipe.max_tokens, encoder.dtype) == ("static", NO_LIMIT, dtype)


def test_model2vec_folder_gives_model2vecs_vectors(tmp_path):
    tokenizer = word_tokenizer(special=("[UNK]",))
    rng = np.random.default_rng(0)
    size = tokenizer.get_vocab_size()
    model = StaticModel(
        rng.normal(size=(8, WIDTH)).astype(np.float32),
        tokenizer,
        normalize=True,
        weights=rng.uniform(0.1, 1, size).astype(np.float32),
        token_mapping=rng.integers(0, 8, size),
    )
    model.save_pretrained(tmp_path / "model")
    encoder = load_encoder(f"sentence-transformers:{tmp_path / 'model'}", dtype="float32")
    np.testing.assert_allclose(encoder.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    assert (encoder.recipe.pooling, encoder.recipe.normalize, encoder.recipe.dim) == ("static", True, WIDTH)


def test_dataset_is_made_with_a_static_model(tmp_path, small_corpus):
    words = word_tokenizer([json.loads(line)["text"] for line in small_corpus.read_text(encoding="utf-8").splitlines()])
    name = save_encoder(tmp_path / "model", StaticEmbedding(words, embedding_dim=WIDTH))
    encoder = load_encoder(name)
    done = extract([str(small_corpus)], tmp_path / "out", encoder, ChunkerConfig(max_tokens=512), max_docs=3)
    assert done.manifest.recipe == encoder.recipe and done.encoded_chunks > 3


# Prompts


@pytest.fixture()
def prompted(tmp_path) -> str:
    """The folder of a model that has a default prompt."""
    first = bert(tmp_path / "bert")
    return save_encoder(tmp_path / "model", first, Pooling(WIDTH), prompts={"query": "query: ", "none": ""}, default_prompt_name="query")


def test_prompt_is_put_before_every_text_and_makes_another_encoder(prompted, tmp_path):
    with_prompt, without = (load_encoder(f"{prompted}?prompt={text}", dtype="float32") for text in ("query:%20", ""))
    np.testing.assert_allclose(with_prompt.encode(TEXTS), library_vectors(tmp_path / "model", "query: "), atol=1e-5)
    np.testing.assert_allclose(without.encode(TEXTS), library_vectors(tmp_path / "model"), atol=1e-5)
    assert (with_prompt.recipe.prompt, without.recipe.prompt) == ("query: ", "")
    with pytest.raises(InputError, match=r"prompt: '' against 'query: '\."):
        without.recipe.require_same(with_prompt.recipe, "decoder")


def test_default_prompt_is_refused_with_the_name_that_uses_it(prompted):
    with pytest.raises(InputError, match=r"default prompt before every text: 'query: '; add '\?prompt=query%3A%20' to its name"):
        load_encoder(prompted)
    assert load_encoder(f"{prompted}?prompt=query%3A%20").recipe.prompt == "query: "


def test_encoder_is_loaded_again_with_its_prompt_by_the_name_in_its_recipe(prompted):
    recipe = load_encoder(f"{prompted}?prompt=query:+").recipe
    assert load_encoder(recipe.name).recipe == recipe


def test_prompt_counts_as_tokens_that_the_encoder_reads(prompted):
    encoder = load_encoder(f"{prompted}?prompt=query:%20")
    assert token_counts(encoder, ["", "Trade."]) == [4, 6], "[CLS] query : trade . [SEP]"
    make_chunker(ChunkerConfig(max_tokens=28), encoder)
    with pytest.raises(InputError, match=r"29 and 4 special tokens and those of the prompt are more than the 32 .* chunker\.max_tokens=28"):
        make_chunker(ChunkerConfig(max_tokens=29), encoder)


def test_prompt_that_leaves_no_room_for_text_is_refused(prompted):
    with pytest.raises(InputError, match="at least 8 tokens of text must fit in: give another encoder or a shorter prompt"):
        make_chunker(ChunkerConfig(), load_encoder(f"{prompted}?prompt={'our+trade+' * 12}"))


def test_pooling_that_leaves_the_prompt_out_is_read_and_described(tmp_path):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH, include_prompt=False))
    encoder = load_encoder(f"{name}?prompt=query:%20", dtype="float32")
    np.testing.assert_allclose(encoder.encode(TEXTS), library_vectors(tmp_path / "model", "query: "), atol=1e-5)
    assert encoder.recipe.pooling == "mean without the prompt"


# Models that a recipe cannot describe


def routes(tmp_path: Path) -> list[object]:
    parts = [[StaticEmbedding(word_tokenizer(), embedding_dim=WIDTH)] for _ in range(2)]
    return [Router.for_query_document(*parts), Normalize()]


def words(tmp_path: Path) -> list[object]:
    tokenizer = WhitespaceTokenizer(["peace", "trade"])
    return [WordEmbeddings(tokenizer, np.ones((2, WIDTH), np.float32)), LSTM(WIDTH, 8), Pooling(WIDTH)]


@pytest.mark.parametrize(("make", "reason"), [(routes, "Router sends queries and documents"), (words, "holds no tokenizer")])
def test_module_that_a_recipe_cannot_describe_is_refused_by_name(tmp_path, make, reason):
    name = save_encoder(tmp_path / "model", *make(tmp_path))
    with pytest.raises(InputError, match=reason):
        load_encoder(name)


def test_model_that_prepares_texts_in_a_way_of_its_own_is_refused(tmp_path, monkeypatch):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH))
    real = SentenceTransformer.encode
    monkeypatch.setattr(SentenceTransformer, "encode", lambda self, texts, **kwargs: real(self, [text[::-1] for text in texts], **kwargs))
    with pytest.raises(InputError, match="it prepares texts in a way that is not supported"):
        load_encoder(name)


def test_adapter_without_its_base_model_is_refused(tmp_path):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH))
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter"):
        load_encoder(name)


def test_static_model_with_pickled_weights_is_refused(tmp_path):
    folder = tmp_path / "model"
    save_encoder(folder, StaticEmbedding(word_tokenizer(), embedding_dim=WIDTH))
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are not loaded"):
        load_encoder(f"sentence-transformers:{folder}")


def test_weights_of_another_shape_are_refused_by_folder(tmp_path):
    name = save_encoder(tmp_path / "model", bert(tmp_path / "bert"), Pooling(WIDTH))
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 32}))
    with pytest.raises(InputError, match="model cannot be loaded"):
        load_encoder(name)
