"""The training loop of an inverter: draw texts, embed them, learn to write them; later also to correct hypotheses.

Training goes in rounds. Everything that a later round depends on is in one file that is replaced after each
round, so a killed training loses one round at most. A round's texts, noise and batches follow from (seed,
round, process) alone. Under torchrun every process draws its own texts on its own device, and the gradients
are averaged.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from lvm.config import DecoderTrainConfig
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.inverter.holdout import TrainingTexts
from lvm.decoding.inverter.hypotheses import with_hypotheses
from lvm.decoding.inverter.loss import InverterLoss, add_noise
from lvm.decoding.inverter.model import Hypothesis, InverterModel
from lvm.decoding.inverter.optimizers import make_optimizers
from lvm.decoding.inverter.pool import Pool, Ragged, plan_pass, round_size, round_up
from lvm.decoding.inverter.sampling import draw_probabilities, draw_texts
from lvm.decoding.inverter.state import load_round, save_round
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.inverter.tokens import encode_texts
from lvm.decoding.text_metrics import text_scores
from lvm.errors import TrainingDiverged
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event, append_event, keep_events
from lvm.training.schedule import warmup_cosine

STATE, EVENTS = "state.safetensors", "metrics.jsonl"


LOG_EVERY = 20
"""Steps between log lines. Each reads the loss from the device, which then stands still."""


SAMPLE = 20_000
"""Texts from which the mean and deviation of the embeddings are estimated."""


REMEDY = "lower decoder.learning_rate and start over with --fresh"


class InverterTrainer:
    """Trains an inverter of `encoder` on the texts `training`; state and metrics go to `folder`.

    `validation` holds texts that are decoded after each round. `key` identifies the run: a state with another
    key is not resumed. `on_event` receives every line of `metrics.jsonl`.
    """

    def __init__(
        self,
        config: DecoderTrainConfig,
        training: TrainingTexts,
        validation: Sequence[str],
        encoder: Encoder,
        tokenizer: Tokenizer,
        folder: Path,
        key: str,
        device: torch.device,
        ranks: Ranks,
        on_event: Callable[[Event], None],
    ) -> None:
        self.config, self.training, self.encoder, self.tokenizer = config, training, encoder, tokenizer
        self.folder, self.key, self.device, self.ranks, self.on_event = folder, key, device, ranks, on_event
        self.size = round_size(config, ranks.world)
        self.total_steps = config.rounds * config.passes * self.size.steps
        self.probabilities = draw_probabilities(training.sources, config.favour)
        self.validation, self.validation_vectors = validation, encoder.encode(validation)
        self.round = self.step = 0
        self.metrics: dict[str, float] = {}
        """Validation metrics after the last round."""
        torch.manual_seed(config.seed)
        self.model = InverterModel(config.model, encoder.recipe.dim)
        texts = training.texts
        sample = encoder.encode(draw_texts(texts, min(SAMPLE, len(texts)), 0.0, 0.0, np.random.default_rng(config.seed)))
        self.model.mean.copy_(torch.from_numpy(sample.mean(0)))
        self.model.scale.fill_(float(np.sqrt(sample.var(0).mean())))
        self.model.to(device)
        self.loss = InverterLoss(self.model)
        # The next texts are drawn on a stream of their own, so that they need not wait for the steps in the queue.
        self.drawing = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.weights = list(self.model.parameters())
        self.optimizers = make_optimizers(self.model, config)
        self._started, self._first_step = time.monotonic(), 0

    def run(self) -> None:
        """Train until the last round is done. The state is saved after each round; the next texts are drawn during it."""
        self.loss.compile(self.size.batch)
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.draw, self.round)
            while self.round < self.config.rounds:
                pool = coming.result()
                if self.round + 1 < self.config.rounds:
                    coming = ahead.submit(self.draw, self.round + 1)
                timing = self.train_round(pool)
                self.round += 1
                self.validate(timing)
                if self.ranks.rank == 0:
                    save_round(self.folder / STATE, self.key, self.round, self.step, self.metrics, self.model, self.optimizers)

    def resume(self) -> None:
        """Continue from the saved state, if there is one; `InputError` when it belongs to another run or is damaged."""
        if (self.folder / STATE).exists():
            self.round, self.step, self.metrics = load_round(self.folder / STATE, self.key, self.model, self.optimizers)
            self._first_step = self.step
            if self.ranks.rank == 0:
                keep_events(self.folder / EVENTS, self.step)
        elif self.ranks.rank == 0:
            (self.folder / EVENTS).unlink(missing_ok=True)

    def draw(self, number: int) -> Pool:
        """Draw, embed and tokenize the texts of round `number`."""
        config = self.config
        rng = np.random.default_rng([config.seed, number, self.ranks.rank])
        texts = draw_texts(
            self.training.texts, self.size.texts, config.spans, config.splices, rng, self.training.held, self.probabilities
        )  # fmt: skip
        with torch.cuda.stream(self.drawing):
            target = torch.from_numpy(self.encoder.encode(texts)).to(self.device)
            pool = Pool(target, Ragged(encode_texts(self.tokenizer, texts, config.model.max_tokens), self.device))
        # The pool's memory belongs to this stream: once the pool is dropped, the next draw reuses it. No step reads
        # it then, since a round ends with a look at the weights, which waits for all steps.
        if self.drawing is not None:
            self.drawing.synchronize()
        return pool

    def train_round(self, pool: Pool) -> dict[str, float]:
        """Learn from `pool` for `passes` passes; from `correct_from` on, partly from hypotheses. Returns timings."""
        config = self.config
        torch.manual_seed(int(self._rng(1).integers(2**62)))
        started = time.monotonic()
        if self.size.corrected and self.round >= config.correct_from * config.rounds:
            pool = with_hypotheses(pool, self.size.corrected, config.noise, self.writer(), self.encoder, self._rng(2))
        wrote, first = time.monotonic() - started, self.step
        # The same order of lengths in every process: otherwise each step waits for the longest batch among them.
        shared = np.random.default_rng([config.seed, self.round])
        self.model.train()
        for _ in range(config.passes):
            for rows, corrects in plan_pass(pool, self.size.batch, shared):
                self.train_step(pool, rows, corrects)
        # The loss is looked at only now and then; weights that broke in between must not be saved.
        if not all(bool(w.isfinite().all()) for w in self.weights):
            raise TrainingDiverged(f"weights are not finite after step {self.step}: {REMEDY}")
        seconds = time.monotonic() - started
        rate = (self.step - first) * config.batch / (seconds - wrote)
        return {"system/guess_seconds": wrote, "system/round_seconds": seconds, "system/texts_per_second": rate}

    def _rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of this round and process; 1 seeds the steps, 2 chooses hypotheses."""
        return np.random.default_rng([self.config.seed, self.round, self.ranks.rank, purpose])

    def writer(self) -> TextWriter:
        """A writer with the present weights, without dropout."""
        return TextWriter(self.model.eval(), self.tokenizer, self.loss.dtype)

    def train_step(self, pool: Pool, numbers: np.ndarray, corrects: bool) -> None:
        """One update from the pool's texts `numbers`, int [B]."""
        rows = torch.from_numpy(numbers).to(self.device)
        hypothesis = None
        if corrects and pool.hypotheses is not None and pool.hypothesis_vectors is not None:
            tokens = pool.hypotheses.take(rows, round_up(int(pool.hypotheses.lengths[numbers].max())))
            hypothesis = Hypothesis(tokens, pool.hypothesis_vectors[rows])
        labels = pool.labels.take(rows, round_up(int(pool.labels.lengths[numbers].max())))
        rate = warmup_cosine(self.step, self.total_steps, self.config.warmup, self.config.learning_rate)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = self.loss(add_noise(pool.vectors[rows], self.config.noise), labels, hypothesis)
        # Without a hypothesis its projections get no gradient, in any process, and are not updated.
        self.ranks.average([w.grad for w in self.weights if w.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        if self.step % LOG_EVERY == 0:
            total = self.ranks.mean(loss.detach())
            if not math.isfinite(total) or not math.isfinite(float(norm)):
                raise TrainingDiverged(f"loss {total}, gradient norm {float(norm)} at step {self.step}: {REMEDY}")
            kind = "train/loss_correction" if corrects else "train/loss_first"
            self._emit({kind: total, "train/gradient_norm": float(norm), "train/learning_rate": rate}, {})
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1

    def validate(self, timing: dict[str, float]) -> None:
        """Decode the validation texts without and with one correction; log one event for the round, with its `timing`."""
        if self.ranks.rank:
            return
        metrics: dict[str, float] = {}
        for steps in (0, 1):
            decoded = Inverter(self.writer(), self.encoder, Search(steps, 1, 1)).decode(self.validation_vectors)
            scores = text_scores([d.text for d in decoded], self.validation)
            cosine = float(np.mean([d.roundtrip_cosine for d in decoded]))
            values = {"bleu": scores.bleu, "token_f1": scores.token_f1, "roundtrip_cosine": cosine}
            metrics |= {f"val/{name}_{steps}_corrections": value for name, value in values.items()}
        self.metrics = metrics
        self._emit(metrics, timing)

    def _emit(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        if self.ranks.rank:
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / max(self.step - self._first_step, 1) * (self.total_steps - self.step)
        timing = {"time": time.time(), "system/eta_seconds": left, **timing}
        event: Event = {"step": self.step, "total_steps": self.total_steps, "epoch": self.round, "metrics": metrics, "timing": timing}
        append_event(self.folder / EVENTS, event)
        self.on_event(event)
