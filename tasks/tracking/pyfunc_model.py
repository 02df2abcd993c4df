"""The model as MLflow loads it: code and safetensors, nothing pickled.

MLflow runs this file when it loads the model; `set_model` at the end names the class to build.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from lvm.models.checkpoint import load_checkpoint


class NextChunk(PythonModel):
    """Contexts [N, T, D] in; `y_dec` by default, or `y_cos`, [N, D] out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the checkpoint among the artifacts; its golden predictions are reproduced first."""
        self.model = load_checkpoint(Path(context.artifacts["config.json"]).parent, torch.device("cpu")).model

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Predict the next chunk. `params["output_type"]`: 'decoder' or 'cosine'."""
        output = (params or {}).get("output_type", "decoder")
        if output not in ("decoder", "cosine"):
            raise ValueError(f"output_type {output!r}: expected 'decoder' or 'cosine'")
        with torch.inference_mode():
            y_dec, y_cos = self.model(torch.from_numpy(np.asarray(model_input, np.float32)), return_both=True)
        return (y_dec if output == "decoder" else y_cos).numpy()


set_model(NextChunk())
