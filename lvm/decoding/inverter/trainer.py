"""Training an inverter: draw texts, embed them, learn to write them back; later also from hypotheses.

It goes in rounds, and everything that a later round depends on is in one file that is replaced
after each: a killed training loses one round at most. A round's texts, noise and batches follow
from (seed, round, process) alone. Under torchrun every process draws its own texts on its own device
and the gradients are averaged.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from lvm.atomic_io import digest_json, write_json, write_text
from lvm.config import DecoderTrainConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.card import decoder_card
from lvm.decoding.inverter.decoder import Inverter, Search
from lvm.decoding.inverter.folder import FILES, DecoderConfig, read_decoder_config, save_decoder
from lvm.decoding.inverter.holdout import TrainingTexts, training_texts
from lvm.decoding.inverter.model import EOS, Hypothesis, InverterModel
from lvm.decoding.inverter.muon import StackedMuon
from lvm.decoding.inverter.pool import Pool, Ragged, batches, chances, draw_texts, round_up
from lvm.decoding.inverter.state import load_round, save_round
from lvm.decoding.inverter.text_writer import TextWriter
from lvm.decoding.inverter.tokens import encode_texts, train_tokenizer
from lvm.decoding.text_metrics import text_scores
from lvm.errors import InputError, TrainingDiverged
from lvm.training.distributed import Ranks
from lvm.training.metrics_log import Event, append_event, keep_events
from lvm.training.run_folder import STATE_FOLDER, prepare_run_folder
from lvm.training.schedule import warmup_cosine

STATE, EVENTS, TOKENIZER = "state.safetensors", "metrics.jsonl", "tokenizer.json"


LOG_EVERY = 20


COMPILE: dict[str, Any] = {"triton.mix_order_reduction": False, "triton.coalesce_tiling_analysis": False}
"""PyTorch 2.11 fails on hypotheses of any length with them: the first writes an index without its parentheses, the second asserts."""


SAMPLE = 20_000
"""Texts from which the encoder's mean and deviation are taken."""


MEASURED = 256
"""Validation texts that are decoded after each round."""


class InverterTrainer:
    """Trains an inverter of `encoder` on the texts `found` into the folder `out`.

    `held` are validation texts, decoded after each round. `on_event` receives every line that goes
    to `metrics.jsonl`.
    """

    def __init__(
        self,
        config: DecoderTrainConfig,
        found: TrainingTexts,
        held: Sequence[str],
        encoder: Encoder,
        tokenizer: Tokenizer,
        folder: Path,
        key: str,
        device: torch.device,
        ranks: Ranks,
        on_event: Callable[[Event], None],
    ) -> None:
        self.config, self.found, self.encoder, self.tokenizer = config, found, encoder, tokenizer
        self.chance = chances(found.sources, config.favour)
        self.held, self.held_vectors = held, encoder.encode(held)
        self.folder, self.key, self.device, self.ranks, self.on_event = folder, key, device, ranks, on_event
        self.bf16 = device.type == "cuda"
        self.round = self.step = 0
        self.measured: dict[str, float] = {}
        torch.manual_seed(config.seed)
        self.model = InverterModel(config.model, encoder.recipe.dim)
        texts = found.texts
        sample = encoder.encode(draw_texts(texts, min(SAMPLE, len(texts)), 0.0, 0.0, np.random.default_rng(config.seed)))
        self.model.mean.copy_(torch.from_numpy(sample.mean(0)))
        self.model.scale.fill_(float(np.sqrt(sample.var(0).mean())))
        self.model.to(device)
        # A step is bound by memory traffic and launches, which one compiled graph halves; on a CPU it would pay after hours.
        self.loss = torch.compile(self.model.forward, options=COMPILE) if device.type == "cuda" else self.model.forward
        # What is drawn ahead must not wait for the steps that are queued meanwhile.
        self.aside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.weights = list(self.model.parameters())
        self.optimizers = make_optimizers(self.model, config)
        if config.batch % ranks.world:
            raise InputError(f"field 'batch' is {config.batch}: give a multiple of {ranks.world}, the number of processes")
        self.per_rank = config.batch // ranks.world
        self.texts_per_rank = config.texts // ranks.world
        whole = self.texts_per_rank // self.per_rank
        self.total_steps = config.rounds * config.passes * whole
        if not self.total_steps:
            raise InputError(f"field 'texts' is {config.texts}: give at least as many as field 'batch', {config.batch}")
        self.corrected = round(config.corrections * whole) * self.per_rank
        if config.corrections and not self.corrected:
            share = f"field 'corrections' is {config.corrections:g} of {whole} batches in a round, which is none"
            raise InputError(f"{share}: give more 'texts', a smaller 'batch', or 0")
        self._started, self._first_step = time.monotonic(), 0

    def run(self) -> None:
        """Train until the last round is done, saving the state after each; the next texts are drawn meanwhile."""
        if self.device.type == "cuda":
            self.compile()
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.draw, self.round)
            while self.round < self.config.rounds:
                pool = coming.result()
                if self.round + 1 < self.config.rounds:
                    coming = ahead.submit(self.draw, self.round + 1)
                timing = self.train_round(pool)
                self.round += 1
                self.measure(timing)
                if self.ranks.rank == 0:
                    save_round(self.folder / STATE, self.key, self.round, self.step, self.measured, self.model, self.optimizers)

    def resume(self) -> None:
        """Go on from the saved state, if there is one; `InputError` when it is of another run or damaged."""
        if (self.folder / STATE).exists():
            self.round, self.step, self.measured = load_round(self.folder / STATE, self.key, self.model, self.optimizers)
            self._first_step = self.step
            if self.ranks.rank == 0:
                keep_events(self.folder / EVENTS, self.step)
        elif self.ranks.rank == 0:
            (self.folder / EVENTS).unlink(missing_ok=True)

    def compile(self) -> None:
        """Compile what a step computes, for texts of every length, with a hypothesis and without.

        All of it now: while PyTorch compiles, it replaces what calling a module does, in other threads too, where
        the encoder would fail. A shape that needs another graph after all is computed without one.
        """
        torch.compiler.set_stance("default")  # an earlier training of this process has left the other
        longest = round_up(self.config.model.max_tokens)
        for length in (longest, round_up(1)):
            labels, guess = (torch.full((self.per_rank, length), EOS, device=self.device) for _ in range(2))
            vectors = self.model.mean.expand(self.per_rank, -1).clone()
            for hypothesis in (None, Hypothesis(guess, vectors.clone())):
                self.gradients(vectors, labels, hypothesis)
        self.model.zero_grad(set_to_none=True)
        torch.compiler.set_stance("eager_on_recompile")

    def draw(self, number: int) -> Pool:
        """Draw, embed and tokenize the texts of round `number`."""
        config = self.config
        rng = np.random.default_rng([config.seed, number, self.ranks.rank])
        texts = draw_texts(self.found.texts, self.texts_per_rank, config.spans, config.splices, rng, self.found.held, self.chance)
        with torch.cuda.stream(self.aside):
            target = torch.from_numpy(self.encoder.encode(texts)).to(self.device)
            pool = Pool(target, Ragged(encode_texts(self.tokenizer, texts, config.model.max_tokens), self.device))
        # Its memory is this stream's, for the next draw, once the pool is dropped. No step reads it then: a round
        # ends with a look at the weights, which waits for all of them.
        if self.aside is not None:
            self.aside.synchronize()
        return pool

    def train_round(self, pool: Pool) -> dict[str, float]:
        """Learn `passes` times from a pool, with hypotheses for a share of it from `correct_from` on; returns what took how long."""
        config = self.config
        torch.manual_seed(int(np.random.default_rng([config.seed, self.round, self.ranks.rank, 1]).integers(2**62)))
        started = time.monotonic()
        if self.corrected and self.round >= config.correct_from * config.rounds:
            pool = self.with_guesses(pool)
        wrote, first = time.monotonic() - started, self.step
        # The order of lengths must be the same everywhere, or every device waits for the longest batch of all.
        together = np.random.default_rng([config.seed, self.round])
        self.model.train()
        for _ in range(config.passes):
            for rows, corrects in self.plan(pool, together):
                self.train_step(pool, rows, corrects)
        # Between the looks at the loss it may have broken: nothing of it is saved.
        if not all(bool(w.isfinite().all()) for w in self.weights):
            raise TrainingDiverged(f"weights are no longer numbers after step {self.step}: lower learning_rate, with --fresh")
        seconds = time.monotonic() - started
        rate = (self.step - first) * config.batch / (seconds - wrote)
        return {"system/guess_seconds": wrote, "system/round_seconds": seconds, "system/texts_per_second": rate}

    def plan(self, pool: Pool, rng: np.random.Generator) -> list[tuple[np.ndarray, bool]]:
        """The batches of one pass in random order, and which of them correct hypotheses."""
        lengths, guessed = pool.labels.lengths, 0 if pool.guess_vectors is None else len(pool.guess_vectors)
        corrected = [(rows, True) for rows in batches(lengths[:guessed], self.per_rank, rng)]
        written = [(rows + guessed, False) for rows in batches(lengths[guessed:], self.per_rank, rng)]
        both = corrected + written
        return [both[i] for i in rng.permutation(len(both))]

    def with_guesses(self, pool: Pool) -> Pool:
        """`pool` with hypotheses for its first texts, whole batches of them, written with the weights as they are now."""
        writer = self.writer()
        sought = self.noisy(pool.vectors[: self.corrected]).cpu().numpy()
        guesses = writer.write(sought)
        vectors = self.encoder.encode(guesses)
        # Half of them are corrected once already: what the corrector will meet from its second step on.
        again = np.flatnonzero(np.random.default_rng([self.config.seed, self.round, self.ranks.rank, 2]).random(len(guesses)) < 0.5)
        second = writer.write(sought[again], [guesses[i] for i in again], vectors[again])
        vectors[again] = self.encoder.encode(second)
        for place, text in zip(again.tolist(), second, strict=True):
            guesses[place] = text
        tokens = Ragged(encode_texts(self.tokenizer, guesses, self.config.model.max_tokens), self.device)
        return Pool(pool.vectors, pool.labels, tokens, torch.from_numpy(vectors).to(self.device))

    def writer(self) -> TextWriter:
        """What writes texts with the weights as they are now, dropout off."""
        return TextWriter(self.model.eval(), self.tokenizer, torch.bfloat16 if self.bf16 else torch.float32)

    def noisy(self, vectors: torch.Tensor) -> torch.Tensor:
        """`vectors` [B, D] with Gaussian noise of a random length each; short ones are the commoner."""
        reach = self.config.noise * torch.rand(len(vectors), 1, device=vectors.device).square()
        return vectors + reach * vectors.norm(dim=1, keepdim=True) * torch.randn_like(vectors) / vectors.shape[1] ** 0.5

    def train_step(self, pool: Pool, numbers: np.ndarray, corrects: bool) -> None:
        """One update from the pool's texts `numbers`, int [B]."""
        rows = torch.from_numpy(numbers).to(self.device)
        guess = None
        if corrects and pool.guesses is not None and pool.guess_vectors is not None:
            tokens = pool.guesses.take(rows, round_up(int(pool.guesses.lengths[numbers].max())))
            guess = Hypothesis(tokens, pool.guess_vectors[rows])
        labels = pool.labels.take(rows, round_up(int(pool.labels.lengths[numbers].max())))
        rate = warmup_cosine(self.step, self.total_steps, self.config.warmup, self.config.learning_rate)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = self.gradients(self.noisy(pool.vectors[rows]), labels, guess)
        # Without a hypothesis its projections have no gradient, in every process alike, and stay as they are.
        self.ranks.average([w.grad for w in self.weights if w.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        # A look at the device at every step would stop it each time.
        if self.step % LOG_EVERY == 0:
            total = self.ranks.mean(loss.detach())
            if not math.isfinite(total) or not math.isfinite(float(norm)):
                raise TrainingDiverged(f"loss {total}, gradient norm {float(norm)} at step {self.step}: lower learning_rate, with --fresh")
            kind = "train/loss_correction" if corrects else "train/loss_first"
            self._emit({kind: total, "train/gradient_norm": float(norm), "train/learning_rate": rate}, {})
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1

    def gradients(self, vectors: torch.Tensor, labels: torch.Tensor, guess: Hypothesis | None) -> torch.Tensor:
        """The loss of a batch (see `InverterModel.forward`), with its gradients in the parameters."""
        if self.device.type == "cuda":  # one compiled graph for all lengths
            for tokens in (labels,) if guess is None else (labels, guess.tokens):
                torch._dynamo.mark_dynamic(tokens, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss: torch.Tensor = self.loss(vectors, labels, guess)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        return loss

    def measure(self, timing: dict[str, float]) -> None:
        """Decode the held-out texts without and with one correction, and compare; one event for the round, with its `timing`."""
        if self.ranks.rank:
            return
        found: dict[str, float] = {}
        for steps in (0, 1):
            decoded = Inverter(self.writer(), self.encoder, Search(steps, 1, 1)).decode(self.held_vectors)
            scores = text_scores([d.text for d in decoded], self.held)
            cosine = float(np.mean([d.roundtrip_cosine for d in decoded]))
            values = {"bleu": scores.bleu, "token_f1": scores.token_f1, "roundtrip_cosine": cosine}
            found |= {f"val/{name}_{steps}_corrections": value for name, value in values.items()}
        self.measured = found
        self._emit(found, timing)

    def _emit(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        if self.ranks.rank:
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / max(self.step - self._first_step, 1) * (self.total_steps - self.step)
        timing = {"time": time.time(), "system/eta_seconds": left, **timing}
        event: Event = {"step": self.step, "total_steps": self.total_steps, "epoch": self.round, "metrics": metrics, "timing": timing}
        append_event(self.folder / EVENTS, event)
        self.on_event(event)


def make_optimizers(model: InverterModel, config: DecoderTrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for embeddings, gains and biases."""
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = [w for w in model.parameters() if w.ndim == 2 and id(w) not in lookups]
    others = [w for w in model.parameters() if w.ndim != 2 or id(w) in lookups]
    rate, decay = config.learning_rate, config.weight_decay
    return [
        StackedMuon(matrices, rate, decay),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98), fused=model.mean.device.type == "cuda"),
    ]


def train_decoder(
    config: DecoderTrainConfig,
    dataset: Dataset,
    hold_out: Sequence[Dataset],
    encoder: Encoder,
    out: Path,
    device: torch.device,
    resume: bool = False,
    fresh: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    ranks: Ranks = Ranks(),
) -> DecoderConfig:
    """Train an inverter of `encoder` on `dataset` into `out`; return at once when `resume` finds it finished.

    No text of the validation and test documents of `dataset` and `hold_out` is learned from. It is
    measured on validation texts of the first of `hold_out`, or of `dataset`. Raises `InputError` when the
    recipes differ, when `out` holds a run and neither `resume` nor `fresh` is given, or when too
    little text is left; `TrainingDiverged` when the loss is no longer a number.
    """
    for data in (dataset, *hold_out):
        encoder.recipe.require_same(data.manifest.recipe, f"dataset {data.path}")
    held_out = [data.manifest.digest for data in (dataset, *hold_out)]  # in order: the first that is held out judges
    folder = out / STATE_FOLDER

    def same_run(found: DecoderConfig) -> bool:
        return (found.train, found.dataset_digest, found.held_out) == (config, dataset.manifest.digest, held_out)

    finished = prepare_run_folder(out, FILES, read_decoder_config, same_run, resume, fresh, ranks)
    if finished is not None:
        return finished
    found = training_texts(dataset, hold_out)
    judge = (hold_out or [dataset])[0]
    rows = judge.rows("val")
    if not len(rows):
        raise InputError(f"split 'val' of dataset {judge.path} is empty: give more documents (ten or more)")
    held = judge.texts(np.random.default_rng(0).permutation(rows)[:MEASURED])
    tokenizer = _tokenizer(config, found.texts, folder, ranks)
    key = digest_json([config.model_dump(), held_out, dataset.manifest.digest, ranks.world])
    trainer = InverterTrainer(config, found, held, encoder, tokenizer, folder, key, device, ranks, on_event)
    if resume:
        trainer.resume()
    if ranks.rank == 0:
        write_json(folder / "config.json", config.model_dump())
    trainer.run()
    if ranks.rank:
        ranks.wait()
        return read_decoder_config(out)
    card = decoder_card(config, dataset.manifest, [d.manifest for d in hold_out], found, trainer.measured, trainer.step)
    made = save_decoder(
        out, trainer.model, tokenizer, config, encoder.recipe, dataset.manifest.digest, held_out, trainer.measured, card
    )  # fmt: skip
    ranks.wait()
    return made


def _tokenizer(config: DecoderTrainConfig, texts: Sequence[str], folder: Path, ranks: Ranks) -> Tokenizer:
    """The run's tokenizer, trained by the first process and kept with its state; without one, it may be another run's."""
    file = folder / TOKENIZER
    if ranks.rank == 0 and not (folder / STATE).exists():
        write_text(file, train_tokenizer(texts, config.model.vocabulary).to_str())
    ranks.wait()
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no kind of its own
        raise InputError(f"{file} is missing, truncated or altered ({error}): give --fresh to start over") from error
