"""The HTTP API: responses are the model's predictions, errors name the field, and nothing is made up."""

import asyncio
import io
import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from lvm.atomic_io import publish_folder
from lvm.config import ServingConfig
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.evaluation.record import write_record
from lvm.gates.result import gate_result
from lvm.models.checkpoint import load_checkpoint
from lvm.serving import batcher
from lvm.serving.admission import AdmissionControl
from lvm.serving.app import make_app
from lvm.serving.loaded_model import LoadedModel
from lvm.serving.model_store import ModelStore
from lvm.serving.schemas import EXAMPLE_SENTENCES, PredictResponse, PredictTextResponse
from lvm.serving.server import ModelServer
from lvm.serving.text import TextPipeline
from tests.support.processes import until

CPU = torch.device("cpu")
NPY = {"content-type": "application/x-npy"}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array.astype(np.float32))
    return file.getvalue()


def only_detail(response: Any) -> dict[str, Any]:
    (detail,) = response.json()["detail"]
    return detail


# Predictions


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("output", ["decoder", "cosine", "both"])
def test_predictions_are_the_model_s_in_the_request_s_shape(single, output, client, model, contexts):
    sent = contexts[0] if single else contexts
    expected = model.predict(contexts[:1] if single else contexts)
    response = client.post("/predict", json={"context_vectors": sent.tolist(), "output_type": output})
    assert response.status_code == 200, response.text
    answer = response.json()
    PredictResponse.model_validate(answer)
    for name, vectors in (("decoder", expected.decoder), ("cosine", expected.cosine)):
        assert (name in answer) == (output in (name, "both"))
        if name in answer:
            np.testing.assert_allclose(answer[name], vectors[0] if single else vectors, atol=1e-6)
    assert (answer["model"], answer["recipe"]) == ("lstm-tiny-v1", model.recipe.id)
    assert answer["out_of_distribution"] == (False if single else [False] * 6)
    binary = client.post("/predict", params={"output_type": output}, content=npy(sent), headers=NPY)
    found = np.load(io.BytesIO(binary.content))
    wanted = [answer[name] for name in ("decoder", "cosine") if name in answer]
    np.testing.assert_allclose(found, wanted if len(wanted) > 1 else wanted[0], atol=1e-6)
    assert binary.headers["content-type"] == "application/x-npy"
    assert binary.headers["lvm-model"] == "lstm-tiny-v1" and binary.headers["lvm-recipe"] == model.recipe.id
    assert binary.headers["lvm-out-of-distribution"] == ("0" if single else "0,0,0,0,0,0")


def test_default_is_the_decoder_s_vector(client, contexts):
    answer = client.post("/predict", json={"context_vectors": contexts[0].tolist()}).json()
    assert answer["output_type"] == "decoder" and "cosine" not in answer


def test_context_unlike_the_training_is_flagged_and_counted(client, contexts):
    strange = contexts.copy()
    noise = np.random.default_rng(0).standard_normal(contexts.shape[2])
    strange[1, 4] = noise / np.linalg.norm(noise)
    answer = client.post("/predict", json={"context_vectors": strange.tolist()}).json()
    assert answer["out_of_distribution"] == [False, True, False, False, False, False]
    assert "lvm_unfamiliar_contexts_total 1.0" in client.get("/metrics").text


def test_concurrent_requests_each_get_their_own_prediction(client, model, contexts):
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        context = contexts[number % 6, : 2 + number % 3]
        found[number] = client.post("/predict", json={"context_vectors": context.tolist()}).json()["decoder"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, vector in found.items():
        expected = model.predict(contexts[number % 6, : 2 + number % 3][None]).decoder[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert len(found) == 24


# Errors


@pytest.mark.parametrize(
    ("body", "loc", "says"),
    [
        ({"context_vectors": [[0.1]]}, ["body", "context_vectors"], "field 'context_vectors': shape [1, 1]: expected [T, 384]"),
        ({"context": []}, ["body", "context"], "field 'context': unknown"),
        ({"context_vectors": [[0.5] * 384]}, ["body", "context_vectors", 0], "field 'context_vectors.0': norm 9.798"),
        (
            {"context_vectors": [[0.5] * 384], "model": "gpt"},
            ["body", "model"],
            "'gpt' is not served; there are lstm-tiny-v1",
        ),
    ],
)
def test_unusable_field_is_named(body, loc, says, client):
    response = client.post("/predict", json=body)
    assert response.status_code == 422
    assert only_detail(response)["loc"] == loc and says in only_detail(response)["msg"]
    assert 'lvm_failures_total{reason="unusable"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "", "application/jsonp"])
def test_body_of_another_type_is_415(kind, client):
    assert client.post("/predict", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_body_that_is_too_large_is_413_whether_or_not_it_states_its_length(start_server):
    client = start_server(ServingConfig(watch=None, max_body=1))
    assert client.post("/predict", content=b"0" * (2**20 + 1), headers=NPY).status_code == 413
    chunks = (b"0" * 2**18 for _ in range(5))
    response = client.post("/predict", content=chunks, headers=NPY)
    assert response.status_code == 413 and only_detail(response)["type"] == "body_too_large"
    spaces = (b" " * 2**18 for _ in range(5))
    assert client.post("/predict_text", content=spaces, headers={"content-type": "application/json"}).status_code == 413


def test_request_that_is_not_admitted_is_told_when_to_retry(client, contexts, monkeypatch):
    monkeypatch.setattr(AdmissionControl, "try_admit", lambda admission, group: False)
    for path, body in (("/predict", {"context_vectors": contexts[0].tolist()}), ("/encode", {"texts": ["One."]})):
        response = client.post(path, json=body)
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
    assert client.get("/info").status_code == 200, "information is not limited"


def test_passed_deadline_is_504_and_a_wrong_one_is_named(client, contexts):
    body = {"context_vectors": contexts[0].tolist()}
    assert client.post("/predict", json=body, headers={"request-timeout": "0.0000001"}).status_code == 504
    assert client.post("/predict", json=body, headers={"request-timeout": "5"}).status_code == 200
    for wrong in ("soon", "-1", "nan", "inf"):
        response = client.post("/predict", json=body, headers={"request-timeout": wrong})
        assert response.status_code == 422 and "Request-Timeout" in only_detail(response)["msg"]


def test_key_is_required_except_by_the_page_and_the_health_checks(start_server, contexts):
    client = start_server(key="open sesame")
    for path in ("/info", "/metrics", "/openapi.json", "/docs", "/nowhere"):
        assert client.get(path).status_code == 401, path
    body = {"context_vectors": contexts[0].tolist()}
    for given in ("", "Bearer", "Bearer open", "Basic open sesame", "Bearer open sesame, too"):
        assert client.post("/predict", json=body, headers={"authorization": given}).status_code == 401
    assert client.post("/predict", json=body, headers={"authorization": "Bearer open sesame"}).status_code == 200
    assert [client.get(path).status_code for path in ("/", "/livez", "/readyz")] == [200, 200, 200]


# Text


def test_text_is_continued_with_real_chunks_and_decoded_text(client, dataset):
    body = {"context": EXAMPLE_SENTENCES, "neighbours": 4, "decode": True, "steps": 2}
    response = client.post("/predict_text", json=body)
    assert response.status_code == 200, response.text
    answer = PredictTextResponse.model_validate(response.json())
    first, second = answer.steps
    assert [n.score for n in first.neighbours] == sorted((n.score for n in first.neighbours), reverse=True)
    assert len(first.neighbours) == 4 and first.neighbours[0].doc_id in dataset.doc_ids
    assert first.decoded and first.decoded.text
    assert len(first.similarities) == 5 and len(second.similarities) == 6, "the decoded text joined the context"
    assert len(first.plane.context) == 5 and len(first.plane.neighbours) == 4 and len(first.plane.prediction) == 2


def test_prediction_from_text_equals_the_prediction_from_its_vectors(client, model, encoder):
    vectors = np.array(client.post("/encode", json={"texts": EXAMPLE_SENTENCES}).json()["vectors"], np.float32)
    np.testing.assert_allclose(vectors, encoder.encode(EXAMPLE_SENTENCES), atol=1e-6)
    expected = model.predict(vectors[None]).decoder[0]
    step = client.post("/predict_text", json={"context": EXAMPLE_SENTENCES}).json()["steps"][0]
    cosines = vectors @ expected / np.linalg.norm(expected) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(step["similarities"], cosines, atol=1e-4)
    assert step["decoded"] is None and step["neighbours"] == []


def test_decode_gives_the_text_back(client, dataset):
    row = int(dataset.rows("test")[0])
    answer = client.post("/decode", json={"vectors": [dataset.vectors[row].tolist()]}).json()
    assert answer["results"][0]["text"] == dataset.texts(np.array([row]))[0]
    assert answer["results"][0]["roundtrip_cosine"] > 0.99


@pytest.mark.parametrize(
    ("path", "body", "loc"),
    [
        ("/predict_text", {"context": []}, ["body", "context"]),
        ("/predict_text", {"context": ["A."], "steps": 0}, ["body", "steps"]),
        ("/predict_text", {"context": ["A."], "sauce": 1}, ["body", "sauce"]),
        ("/predict_text", {"context": ["A.", "  "]}, ["body", "context", 1]),
        ("/predict_text", {"context": ["A.", "word " * 400]}, ["body", "context", 1]),
        ("/predict_text", {"context": ["A."], "steps": 2}, ["body", "steps"]),
        ("/predict_text", {"context": ["A."], "model": "gpt"}, ["body", "model"]),
        ("/encode", {"texts": [3]}, ["body", "texts", 0]),
        ("/decode", {"vectors": [[1.0, 2.0], [1.0]]}, ["body", "vectors", 1]),
        ("/decode", {"vectors": [[1.0, 2.0]]}, ["body"]),
    ],
)
def test_text_request_that_cannot_be_used_names_the_field(path, body, loc, client):
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["detail"][0]["loc"] == loc


def test_missing_decoder_or_dataset_is_named_with_the_remedy(start_server, text_pipeline):
    client = start_server(text=TextPipeline(text_pipeline.encoder, None, None))
    for body, remedy in (({"decode": True}, "--decoder"), ({"neighbours": 1}, "--data")):
        response = client.post("/predict_text", json={"context": ["A sentence."], **body})
        assert response.status_code == 422 and remedy in only_detail(response)["msg"]
    response = client.post("/decode", json={"vectors": [[1.0] + [0.0] * 383]})
    assert response.status_code == 422 and "--decoder" in only_detail(response)["msg"]
    assert (client.get("/info").json()["decoder"], client.get("/info").json()["neighbours"]) == (False, False)


# Information and logs


def test_info_has_version_recipe_data_gates_and_skill(client, model, dataset):
    (found,) = client.get("/info").json()["models"]
    assert (found["model"], found["arch"]) == ("lstm-tiny-v1", "lstm")
    assert found["recipe"]["id"] == model.recipe.id and found["dataset_digest"] == dataset.manifest.digest
    assert found["gates"] is None and found["verdict"] is None and found["metrics"] is None, "this model has not been evaluated"


def test_info_has_the_four_skills_with_intervals_and_a_warning_as_one(model_folder, dataset, tmp_path):
    folder = Path(shutil.copytree(model_folder, tmp_path / "evaluated"))
    checkpoint = load_checkpoint(folder, torch.device("cpu"))
    summaries = [evaluate_checkpoint(dataset, checkpoint, split).summary() for split in ("val", "test")]
    gates = [gate_result(name, 0.1, 0, False, "found", "do this", name == "baselines").as_json() for name in ("baselines", "collapse")]
    write_record(folder, dataset.manifest.digest, gates, *summaries)
    found = LoadedModel(folder, torch.device("cpu")).info()
    assert found["verdict"] == "pass with warnings: baselines" and [gate["severity"] for gate in found["gates"]] == ["warn", "ok"]
    for split, summary in zip(("val", "test"), summaries, strict=True):
        for metric in SKILLS:
            assert found["metrics"][split][f"skill_{metric}"] == summary["metrics"][f"skill_{metric}"]
    assert set(found["best_baseline"]) == set(SKILLS)


def test_metrics_count_requests_batches_and_seconds(client, contexts):
    for _ in range(3):
        client.post("/predict", json={"context_vectors": contexts.tolist()})
    shown = client.get("/metrics").text
    assert 'lvm_requests_total{path="/predict",status="200"} 3.0' in shown
    assert 'lvm_request_seconds_count{path="/predict"} 3.0' in shown
    assert "lvm_batch_contexts_sum 18.0" in shown and "lvm_queue 0.0" in shown
    assert 'lvm_model{model="lstm-tiny-v1"} 1.0' in shown


def test_unknown_paths_share_one_metric_label(client):
    for number in range(5):
        assert client.get(f"/{number}").status_code == 404
    assert 'lvm_requests_total{path="other",status="404"} 5.0' in client.get("/metrics").text


def test_log_has_a_line_for_each_request_and_no_text_of_it(client, caplog):
    with caplog.at_level(logging.INFO, "lvm.serving"):
        logging.getLogger("lvm.serving").propagate = True
        client.post("/predict_text", json={"context": ["A secret sentence."]}, headers={"x-request-id": "abc"})
        client.post("/predict_text", json={"context": ["Another secret sentence."], "steps": 5})
    lines = [vars(record) for record in caplog.records if record.message == "request"]
    assert [(line["status"], line["reason"]) for line in lines] == [(200, None), (422, "unusable")]
    assert lines[0]["request_id"] == "abc" and lines[0]["model"] == "lstm-tiny-v1"
    assert "secret" not in json.dumps(lines, default=str)


def test_server_is_alive_but_not_ready_while_it_loads(model_folder, text_pipeline):
    may_load = threading.Event()

    def load_models(metrics: Any) -> ModelStore:
        may_load.wait(30)
        return ModelStore([model_folder], CPU, metrics)

    server = ModelServer(load_models, lambda models: text_pipeline, ServingConfig(watch=None), None)
    with TestClient(make_app(server)) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        refused = client.post("/predict", content=b"x", headers=NPY)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1", "nothing is made up"
        may_load.set()
        client.portal.call(server.loaded.wait)
        assert client.get("/readyz").json() == {"status": "ready"}


def test_newer_champion_is_found_without_a_signal(start_server, model_folder, tmp_path):
    publish_folder(model_folder, tmp_path / "champion", "lstm-tiny-v1")
    client = start_server(ServingConfig(watch=0.05), folder=tmp_path / "champion")
    publish_folder(model_folder, tmp_path / "champion", "lstm-tiny-v2")
    until(lambda: client.get("/info").json()["models"][0]["model"] == "lstm-tiny-v2")


def test_every_example_in_the_documentation_runs(client):
    paths = client.get("/openapi.json").json()["paths"]
    ran = []
    for path, methods in paths.items():
        for content in methods.get("post", {}).get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                response = client.post(path, json=content["example"])
                assert response.status_code == 200, (path, response.text)
                ran.append(path)
    assert ran == ["/predict", "/predict_text", "/encode", "/decode"]


def test_documentation_loads_nothing_from_other_hosts(client):
    assert "https://" not in client.get("/docs").text.replace("https://github.com", "")


def test_page_is_complete_and_may_load_nothing_from_other_hosts(client):
    response = client.get("/")
    assert EXAMPLE_SENTENCES[0] in response.text and "default-src 'none'" in response.headers["content-security-policy"]


def test_request_is_dropped_when_its_client_disconnects(client, contexts, model, monkeypatch):
    """The application is called as uvicorn calls it; the client hangs up while another's prediction is computed."""
    begun, may_predict = threading.Event(), threading.Event()
    predict, sizes = type(model).predict, []

    def slow(self: Any, x: np.ndarray) -> Any:
        sizes.append(len(x))
        begun.set()
        may_predict.wait(30)
        return predict(self, x)

    monkeypatch.setattr(type(model), "predict", slow)
    monkeypatch.setattr(batcher, "IN_LOOP_SECONDS", 0.0)  # in a thread, so that the event loop sees the client leave
    other = threading.Thread(target=client.post, args=("/predict",), kwargs={"content": npy(contexts[:2]), "headers": NPY})
    other.start()
    begun.wait(30)

    async def leave() -> None:
        messages = [{"type": "http.request", "body": npy(contexts[:3]), "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/predict"}
        scope |= {"raw_path": b"/predict", "query_string": b"", "root_path": "", "headers": [(b"content-type", b"application/x-npy")]}
        leaving = asyncio.create_task(client.app(scope | {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send))
        await asyncio.sleep(0.05)
        may_predict.set()
        await asyncio.wait_for(leaving, 30)

    client.portal.call(leave)
    other.join()
    assert sizes == [2]
    assert 'lvm_failures_total{reason="client_left"} 1.0' in client.get("/metrics").text
