"""The competitor without batching: a plain FastAPI endpoint around the same model, as one would write it first.

python -m bench.serving.plain --model models/champion --port 8801
"""

import argparse
from pathlib import Path
from typing import Literal

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from lvm.models.checkpoint import load_checkpoint


class PlainRequest(BaseModel):
    """Contexts, [B, T, D]."""

    context_vectors: list[list[list[float]]]
    output_type: Literal["decoder", "cosine"] = "decoder"


class PlainResponse(BaseModel):
    """Predictions, [B, D]."""

    vectors: list[list[float]]


def make_app(model: Path) -> FastAPI:
    """The endpoint runs in FastAPI's thread pool, with one computation for each request."""
    predictor = load_checkpoint(model, torch.device("cpu")).model
    app = FastAPI()

    @app.post("/predict")
    def predict(body: PlainRequest) -> PlainResponse:
        with torch.inference_mode():
            y_dec, y_cos = predictor(torch.tensor(body.context_vectors), return_both=True)
        return PlainResponse(vectors=(y_dec if body.output_type == "decoder" else y_cos).tolist())

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    uvicorn.run(make_app(options.model), port=options.port, http="httptools", loop="uvloop", access_log=False, log_level="warning")
