import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from lvm.config import ENCODERS, ChunkerConfig
from lvm.data import encoders as module
from lvm.data.chunker import Chunker
from lvm.data.encoders import encoder_names, load_encoder
from lvm.data.extract import extract
from lvm.data.model_folder import weights_sha256
from lvm.errors import InputError

MINILM = module.minilm_folder()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def copy_minilm(target: Path, modules: int) -> Path:
    """The folder of MiniLM with its first modules only; the weights are linked, not copied."""
    shutil.copytree(MINILM, target, ignore=shutil.ignore_patterns("*.safetensors"))
    (target / "model.safetensors").symlink_to(MINILM / "model.safetensors")
    listed = json.loads((MINILM / "modules.json").read_text())
    (target / "modules.json").write_text(json.dumps(listed[:modules]))
    return target


@pytest.fixture(scope="module")
def sentences(small_corpus, encoder) -> list[str]:
    """The sentences of a few addresses."""
    cut = Chunker(ChunkerConfig(), encoder.tokenizer)
    return [chunk.text for line in small_corpus.read_text(encoding="utf-8").splitlines()[:5] for chunk in cut(json.loads(line)["text"])]


@pytest.fixture(scope="module")
def texts(sentences) -> list[str]:
    """Sentences of very different lengths, in no order of length."""
    return sentences[:: len(sentences) // 24][:24]


# MiniLM


def test_minilm_is_the_recipe_that_it_claims_to_be(encoder):
    assert encoder.recipe.model_dump() == {
        "name": "minilm",
        "weights_sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "pooling": "mean",
        "dense": False,
        "normalize": True,
        "max_tokens": 256,
        "dim": 384,
    }


def test_vectors_are_float32_of_unit_length(encoder, texts):
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_text_gives_no_vector_of_the_right_width(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_like_texts_are_nearer_than_unlike_ones(encoder):
    a, b, c = encoder.encode(["The harvest was poor.", "Crops failed this year.", "The fleet sailed for the islands."])
    assert a @ b > a @ c + 0.1


def test_vector_depends_neither_on_the_batch_nor_on_the_order(encoder, texts):
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    sevens = np.concatenate([encoder.encode(texts[start : start + 7]) for start in range(0, len(texts), 7)])
    backwards = encoder.encode(texts[::-1])[::-1]
    for other in (alone, sevens, backwards):
        assert cosines(together, other).min() >= 0.999
        np.testing.assert_allclose(together, other, atol=1e-2)


def test_precisions_agree_and_are_recorded(texts):
    exact, rough = (load_encoder("minilm", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert (exact.dtype, rough.dtype) == ("float32", "bfloat16")
    assert exact.recipe == rough.recipe
    a, b = exact.encode(texts), rough.encode(texts)
    assert cosines(a, b).min() >= 0.999
    assert not np.array_equal(a, b), "the precision was really changed"


def test_text_over_the_limit_is_truncated_there(encoder):
    long = "peace " * 400
    assert cosines(encoder.encode([long]), encoder.encode(["peace " * 254]))[0] >= 0.999
    assert len(encoder.tokenizer.encode(long).ids) == 402, "the tokenizer that counts does not truncate"


def test_tokenizer_that_counts_does_not_pad(encoder):
    short, _ = encoder.tokenizer.encode_batch(["Peace.", "Peace and commerce with all nations."])
    assert len(short.ids) == 4


def test_other_weights_under_the_name_minilm_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MINILM_WEIGHTS", "0" * 64)
    with pytest.raises(InputError, match=f"expected {'0' * 64}"):
        load_encoder("minilm")


# Names and folders


@pytest.mark.parametrize("name", ["word2vec", "", "MiniLM", "gtr-base", "minilm:x", "sentence-transformers", "sentence-transformers:"])
def test_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match="there are minilm, gtr-t5-base, sentence-transformers:<name or folder>"):
        load_encoder(name)


def test_kind_that_is_registered_from_outside_is_loaded_and_named(forgetting, encoder):
    forgetting(ENCODERS)

    @ENCODERS.register("mine", takes="size")
    def mine(name, device, dtype):
        return (name, device, dtype)

    assert load_encoder("mine:large", "cpu", "float32") == ("mine:large", "cpu", torch.float32)
    assert encoder_names().endswith(", openai:<URL#model>, mine:<size>")


def test_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'float16' is not one of auto, float32, bfloat16"):
        load_encoder("minilm", dtype="float16")


@pytest.mark.parametrize("name", ["sentence-transformers:/no/such/folder", "sentence-transformers:no-such-owner/no-such-model"])
def test_model_that_cannot_be_had_is_refused_by_name(name):
    with pytest.raises(InputError, match=name.partition(":")[2]):
        load_encoder(name)


def test_folder_without_safetensors_is_refused_and_pickles_are_not_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(InputError, match="pickled weights are not loaded"):
        load_encoder(f"sentence-transformers:{tmp_path}")


def test_weights_digest_covers_every_file_in_the_order_of_paths(tmp_path):
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"one")
    alone = weights_sha256(tmp_path)
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"two")
    both = weights_sha256(tmp_path)
    assert alone == weights_sha256(tmp_path, pattern="model*.safetensors")
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"owt")
    assert len({alone, both, weights_sha256(tmp_path)}) == 3


def test_two_recipes_over_the_same_weights_are_different_encoders(encoder, texts, tmp_path):
    raw = load_encoder(f"sentence-transformers:{copy_minilm(tmp_path / 'raw', modules=2)}")
    assert raw.recipe.weights_sha256 == encoder.recipe.weights_sha256
    assert encoder.recipe.normalize and not raw.recipe.normalize
    assert raw.recipe.id != encoder.recipe.id
    with pytest.raises(InputError, match="normalize: True against False"):
        encoder.recipe.require_same(raw.recipe, "decoder")
    vectors = raw.encode(texts)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 0.01
    assert cosines(vectors, encoder.encode(texts)).min() >= 0.999


def test_folder_of_the_same_model_under_another_name_is_the_same_encoder(encoder, tmp_path):
    copied = load_encoder(f"sentence-transformers:{copy_minilm(tmp_path / 'copied', modules=3)}")
    assert copied.recipe.name != encoder.recipe.name
    copied.recipe.require_same(encoder.recipe, "decoder")


def test_folder_whose_dense_layer_is_pickled_is_refused(tmp_path):
    folder = copy_minilm(tmp_path / "dense", modules=2)
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"weights that the digest would not cover")
    with pytest.raises(InputError, match=r"2_Dense/pytorch_model\.bin as safetensors"):
        load_encoder(f"sentence-transformers:{folder}")


@pytest.mark.parametrize("damage", ["truncated weights", "missing config", "missing tokenizer"])
def test_damaged_or_incomplete_folder_is_refused_by_name(tmp_path, damage):
    folder = copy_minilm(tmp_path / "damaged", modules=3)
    if damage == "truncated weights":
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes((MINILM / "model.safetensors").read_bytes()[:5000])
    elif damage == "missing config":
        (folder / "config.json").unlink()
    else:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match=f"{folder} cannot be loaded"):
        load_encoder(f"sentence-transformers:{folder}")


def test_folder_without_pooling_is_refused(tmp_path):
    with pytest.raises(InputError, match="no pooling module"):
        load_encoder(f"sentence-transformers:{copy_minilm(tmp_path / 'tokens', modules=1)}")


# vec2text's recipe for GTR


@pytest.fixture(scope="module")
def gtr_folder(sentences, tmp_path_factory) -> Path:
    """A tiny random T5 encoder with a word tokenizer, laid out as the hub's gtr-t5-base."""
    folder = tmp_path_factory.mktemp("gtr")
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "</s>", "<unk>"]
    words.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=special))
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=words.get_vocab_size(), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"the dense layer that this recipe leaves out")
    return folder


@pytest.fixture(scope="module")
def gtr(gtr_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GTR_HUB_NAME", str(gtr_folder))
        return load_encoder("gtr-t5-base", dtype="float32")


def by_hand(folder: Path, text: str) -> np.ndarray:
    """The mean of the encoder's states over the first 31 words and the end mark."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [*tokenizer.encode(text, add_special_tokens=False).ids[:31], tokenizer.token_to_id("</s>")]
    model = T5EncoderModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


def test_gtr_recipe_is_vec2texts_and_not_that_of_sentence_transformers(gtr, gtr_folder):
    assert gtr.recipe.model_dump() == {
        "name": "gtr-t5-base",
        "weights_sha256": weights_sha256(gtr_folder, pattern="model.safetensors"),
        "pooling": "mean",
        "dense": False,
        "normalize": False,
        "max_tokens": 32,
        "dim": 32,
    }


def test_gtr_vectors_are_plain_means_over_tokens_padding_left_out(gtr, gtr_folder, texts):
    vectors = gtr.encode(texts)
    lengths = [len(encoding.ids) for encoding in gtr.tokenizer.encode_batch(texts)]
    assert min(lengths) < 16 and max(lengths) > 32, "short texts are padded, long ones truncated"
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack([by_hand(gtr_folder, text) for text in texts]), atol=1e-5)
    assert np.ptp(np.linalg.norm(vectors, axis=1)) > 0.01, "no unit length"


def test_gtr_reads_thirty_one_tokens_and_no_more(gtr):
    words = ["the", "of", "and", "to"] * 10
    full, longer, shorter = gtr.encode([" ".join(words[:n]) for n in (31, 40, 30)])
    np.testing.assert_allclose(full, longer, atol=1e-6)
    assert np.abs(full - shorter).max() > 1e-4


def test_gtr_takes_any_number_of_texts(gtr):
    assert gtr.encode([]).shape == (0, 32)
    assert np.isfinite(gtr.encode([""])).all()


def test_gtr_refuses_a_token_budget_over_its_own(gtr, small_corpus, tmp_path):
    with pytest.raises(InputError, match=r"set chunker\.max_tokens=31 or less"):
        extract([str(small_corpus)], tmp_path / "out", gtr, ChunkerConfig(max_tokens=32))
    assert not (tmp_path / "out").exists()
    done = extract([str(small_corpus)], tmp_path / "out", gtr, ChunkerConfig(max_tokens=31), max_docs=2)
    assert done.manifest.recipe == gtr.recipe and done.encoded_chunks > 2


def test_gtr_folder_without_a_tokenizer_is_refused(monkeypatch, gtr_folder, tmp_path):
    folder = shutil.copytree(gtr_folder, tmp_path / "gtr", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    monkeypatch.setattr(module, "GTR_HUB_NAME", str(folder))
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_encoder("gtr-t5-base")


def test_gtr_without_safetensors_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "GTR_HUB_NAME", str(tmp_path))
    with pytest.raises(InputError, match="pickled weights are not loaded"):
        load_encoder("gtr-t5-base")
