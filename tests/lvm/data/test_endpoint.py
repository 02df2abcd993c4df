"""Encoders behind an endpoint: what they are known by, and every way in which a server can fail, in one sentence."""

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from lvm.config import ChunkerConfig
from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder, load_encoder, token_counts
from lvm.data.endpoint_client import KEY, TRIES
from lvm.data.extract import extract
from lvm.errors import InputError
from tests.support.answering import Endpoint, vector, vectors_of
from tests.support.encoder_folders import word_tokenizer

URL = "http://embeddings.test:8080/v1"
TEXTS = [f"Sentence number {i} of the year." for i in range(100)]


@pytest.fixture()
def endpoint(monkeypatch) -> Endpoint:
    monkeypatch.delenv(KEY, raising=False)
    return Endpoint(monkeypatch)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer's folder, which says that 64 tokens are read."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = word_tokenizer(TEXTS)
    words.enable_truncation(5)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    return folder


@pytest.fixture()
def corpus(tmp_path) -> Path:
    """Two documents, of which the tokenizer knows every word."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, texts in enumerate((TEXTS[:50], TEXTS[50:])):
        (folder / f"{number}.txt").write_text("\n".join(texts), encoding="utf-8")
    return folder


@pytest.fixture()
def loaded(endpoint, tokenizer) -> Encoder:
    return load_encoder(f"openai:{URL}#small?tokenizer={tokenizer}")


def refused(endpoint: Endpoint, encoder: Encoder, answer: httpx.Response | None, texts: list[str] = TEXTS[:3]) -> str:
    """The sentence in which texts are refused when the endpoint gives this answer."""
    endpoint.answer = lambda body: answer
    with pytest.raises(InputError) as caught:
        encoder.encode(texts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What works


def test_vectors_are_in_the_order_of_the_texts_whatever_the_servers(endpoint, loaded):
    vectors = loaded.encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack([vector(text) for text in TEXTS]), atol=1e-6)
    assert loaded.encode([]).shape == (0, 24)


def test_texts_are_sent_in_batches_that_every_server_takes(endpoint, loaded):
    loaded.encode(TEXTS)
    bodies = [json.loads(request.content) for request in endpoint.requests[1:]]
    assert sorted(len(body["input"]) for body in bodies) == [4, 32, 32, 32]
    assert {body["model"] for body in bodies} == {"small"} and {str(r.url) for r in endpoint.requests} == {f"{URL}/embeddings"}


def test_recipe_says_what_can_be_known_of_an_endpoint(endpoint, tokenizer, loaded):
    recipe = loaded.recipe
    assert (recipe.pooling, recipe.normalize, recipe.dim, recipe.max_tokens, loaded.dtype) == ("endpoint", True, 24, 64, "served")
    assert len(recipe.golden) == 8 * 16
    endpoint.answer = lambda body: vectors_of(body["input"], dim=12)
    other = load_encoder(f"openai:{URL}#other?tokenizer={tokenizer}&max_tokens=32&prompt=query:+").recipe
    assert (other.max_tokens, other.prompt, len(other.golden)) == (32, "query: ", 8 * 12)
    assert other.weights_sha256 != recipe.weights_sha256


def test_tokens_are_counted_whole_and_with_the_prompt(endpoint, tokenizer):
    encoder = load_encoder(f"openai:{URL}#small?tokenizer={tokenizer}&prompt=the+year+")
    assert token_counts(encoder, ["Sentence of the year."]) == [2 + 2 + 5]
    encoder.encode(["Sentence."])
    assert json.loads(endpoint.requests[-1].content)["input"] == ["the year Sentence."]


def test_server_that_moved_or_rounds_otherwise_is_the_same_encoder(endpoint, tokenizer, loaded):
    def rounded(body):
        rows = [{"index": i, "embedding": (vector(text) + 1e-4).round(3).tolist()} for i, text in enumerate(body["input"])]
        return httpx.Response(200, json={"data": rows})

    endpoint.answer = rounded
    moved = load_encoder(f"openai:https://elsewhere.test/v1#small?tokenizer={tokenizer}")
    assert moved.recipe.id == loaded.recipe.id and moved.recipe.golden != loaded.recipe.golden
    loaded.recipe.require_same(moved.recipe, "dataset")


def test_dataset_is_made_opened_and_not_mistaken_for_another_models(endpoint, tokenizer, corpus, tmp_path, monkeypatch):
    name = f"openai:{URL}#small?tokenizer={tokenizer}"
    given = ([str(corpus)], tmp_path / "out")
    extract(*given, load_encoder(name), ChunkerConfig(max_tokens=32))
    assert open_dataset(tmp_path / "out").manifest.recipe.golden
    assert extract(*given, load_encoder(name), ChunkerConfig(max_tokens=32)).reused
    endpoint.answer = lambda body: vectors_of([text[::-1] for text in body["input"]])
    with pytest.raises(InputError, match=r"out: .* gives other vectors than .* did"):
        extract(*given, load_encoder(name), ChunkerConfig(max_tokens=32))


def test_interrupted_extraction_goes_on_with_the_model_that_it_began_with(endpoint, tokenizer, corpus, tmp_path):
    name = f"openai:{URL}#small?tokenizer={tokenizer}"
    given = ([str(corpus)], tmp_path / "out")
    encoder = load_encoder(name)
    endpoint.answer = lambda body: httpx.Response(400)
    with pytest.raises(InputError, match="HTTP 400"):
        extract(*given, encoder, ChunkerConfig(max_tokens=32))
    endpoint.answer = lambda body: vectors_of([text[::-1] for text in body["input"]])
    with pytest.raises(InputError, match=r"out, an extraction that was interrupted: .* gives other vectors"):
        extract(*given, load_encoder(name), ChunkerConfig(max_tokens=32))
    endpoint.answer = lambda body: vectors_of(body["input"])
    assert not extract(*given, load_encoder(name), ChunkerConfig(max_tokens=32)).reused


# The key


def test_key_is_sent_and_nowhere_else(endpoint, tokenizer, monkeypatch, caplog):
    monkeypatch.setenv(KEY, "secret-key")
    with caplog.at_level("DEBUG"):
        encoder = load_encoder(f"openai:{URL}#small?tokenizer={tokenizer}")
        message = refused(endpoint, encoder, httpx.Response(400, text="your key is secret-key,\nand more"))
    assert {request.headers["authorization"] for request in endpoint.requests} == {"Bearer secret-key"}
    assert "your key is ***, and more" in message
    assert "secret-key" not in caplog.text + encoder.recipe.model_dump_json() + repr(vars(encoder))


def test_without_a_key_none_is_sent(endpoint, loaded):
    assert "authorization" not in endpoint.requests[0].headers


# A server that fails


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again_after_growing_waits(endpoint, loaded, status):
    answers = [httpx.Response(status)] * 3
    endpoint.answer = lambda body: answers.pop() if answers else vectors_of(body["input"])
    assert loaded.encode(TEXTS[:2]).shape == (2, 24)
    assert [0.5 * 2**i <= wait <= 2**i for i, wait in enumerate(endpoint.waits)] == [True] * 3


def test_server_that_says_when_is_asked_then_but_not_after_hours(endpoint, loaded):
    answers = [httpx.Response(429, headers={"retry-after": seconds}) for seconds in ("86400", "7")]
    endpoint.answer = lambda body: answers.pop() if answers else vectors_of(body["input"])
    loaded.encode(TEXTS[:2])
    assert endpoint.waits == [7, 60]


def test_server_that_stays_busy_is_refused_in_the_end(endpoint, loaded):
    assert "refused 3 texts (HTTP 503: try later)" in refused(endpoint, loaded, httpx.Response(503, text="try later"))
    assert len(endpoint.waits) == TRIES - 1


def test_lost_connection_is_tried_again(endpoint, loaded):
    def lost(body):
        raise httpx.ReadError("connection reset")

    endpoint.answer = lost
    with pytest.raises(InputError, match=r"cannot be reached \(ReadError: connection reset\): start it"):
        loaded.encode(TEXTS[:2])
    assert len(endpoint.waits) == TRIES - 1


def test_server_that_is_not_there_is_refused_at_once(endpoint, tokenizer):
    def nobody(body):
        raise httpx.ConnectError("connection refused")

    endpoint.answer = nobody
    with pytest.raises(InputError, match=r"#small.*cannot be reached \(ConnectError: connection refused\)"):
        load_encoder(f"openai:{URL}#small?tokenizer={tokenizer}")
    assert endpoint.waits == []


def row(index: object = 0, embedding: object = (1.0,) * 24) -> dict[str, object]:
    return {"index": index, "embedding": embedding}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([row(0), row(1)], "gave 2 vectors for 3 texts"),
        ([row(0), row(0), row(2)], r"numbered 3 vectors \[0, 0, 2\]"),
        ([row(0), row("one"), row(None)], "the field 'index' must be 0 to 2"),
        ([row(i, (1.0,) * 12) for i in range(3)], "of dimension 12 after others of 24: its model was changed"),
        ([row(i, (1.0,) * (i + 1)) for i in range(3)], "of several lengths or not of numbers"),
        ([row(i, [None] * 24) for i in range(3)], "not of numbers|zero, NaN or infinite"),
        ([row(i, (0.0,) * 24) for i in range(3)], "zero, NaN or infinite"),
        ([row(i, "AAAA") for i in range(3)], "of several lengths or not of numbers"),
        ([row(i, []) for i in range(3)], "zero, NaN or infinite"),
        ([{"embedding": [1.0]}] * 3, "answered something else than vectors"),
        (None, "answered something else than vectors"),
    ],
)
def test_answer_that_is_not_one_usable_vector_a_text_is_refused(endpoint, loaded, data, reason):
    assert re.search(reason, refused(endpoint, loaded, httpx.Response(200, json={"data": data})))


def test_not_a_number_is_refused(endpoint, loaded):
    body = json.dumps({"data": [row(i, [float("nan")] * 24) for i in range(3)]})
    assert "zero, NaN or infinite" in refused(endpoint, loaded, httpx.Response(200, text=body))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, f"refused the key (HTTP 401): set {KEY}"),
        (403, f"refused the key (HTTP 403): set {KEY}"),
        (404, "has no such address or model (HTTP 404: no such model): the URL often ends in /v1"),
        (413, "refused 3 texts (HTTP 413: no such model)"),
    ],
)
def test_refusal_names_its_cause(endpoint, loaded, status, reason):
    assert reason in refused(endpoint, loaded, httpx.Response(status, text="no such model"))
    assert endpoint.waits == []


def test_answer_that_is_a_page_is_refused(endpoint, loaded):
    assert "(<html> hello)" in refused(endpoint, loaded, httpx.Response(200, text="<html>\nhello"))


# Names


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (URL, "no model is named: write openai:URL#MODEL"),
        (f"{URL}#", "nothing stands before"),
        ("ftp://host/v1#small?tokenizer={folder}", "is no URL"),
        ("http://#small?tokenizer={folder}", "is no URL"),
        ("http://host:port/v1#small?tokenizer={folder}", "is no URL"),
        (f"{URL}#small?dimensions=3", "each of tokenizer, max_tokens, prompt may stand once"),
        (f"{URL}#small?tokenizer={{folder}}&max_tokens=0", "max_tokens=0 is not a whole number of 1 or more"),
        (f"{URL}#no/such", r"add '\?tokenizer=FOLDER'"),
        (f"{URL}#small?tokenizer={{folder}}/..", "holds no tokenizer.json"),
    ],
)
def test_name_that_cannot_be_used_is_refused(endpoint, tokenizer, name, reason):
    with pytest.raises(InputError, match=reason):
        load_encoder(f"openai:{name.format(folder=tokenizer)}")


def test_url_with_a_password_is_refused_without_showing_it(endpoint, tokenizer):
    with pytest.raises(InputError, match=r"the URL of host\.test holds a password") as caught:
        load_encoder(f"openai:http://me:hunter2@host.test/v1#small?tokenizer={tokenizer}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("limit", [{}, {"model_max_length": 10**30}])
def test_tokenizer_without_a_limit_needs_one(endpoint, tmp_path, limit):
    word_tokenizer(TEXTS).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(limit))
    with pytest.raises(InputError, match=r"does not say how many tokens the model reads: add '\?max_tokens=N'"):
        load_encoder(f"openai:{URL}#small?tokenizer={tmp_path}")
    assert load_encoder(f"openai:{URL}#small?tokenizer={tmp_path}&max_tokens=40").recipe.max_tokens == 40


def test_tokenizer_that_is_damaged_is_refused(endpoint, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json is no tokenizer"):
        load_encoder(f"openai:{URL}#small?tokenizer={tmp_path}")


def test_url_keeps_its_own_query(endpoint, tokenizer):
    load_encoder(f"openai:https://host.test/v1/?api-version=2#small?tokenizer={tokenizer}")
    assert str(endpoint.requests[0].url) == "https://host.test/v1/embeddings?api-version=2"
