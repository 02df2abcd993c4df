"""Time vec2text's own zero-step loop, which the decoding benchmark compares the inverter with.

    python bench/decode/vec2text_peer.py --dim 384 --d-model 512 --d-ff 768 --layers 3 --heads 8 --vocab 7680 --max-length 32 --device cuda

The model is vec2text's `InversionModel` with random weights. The timed code is what the library's
`invert_embeddings(embeddings, corrector, num_steps=None)` does: `InversionModel.generate` with the library's
settings (greedy, with a key-value cache) and the tokenizer's `batch_decode`. The random weights never end a
text, so each has max_length - 1 tokens, as `tokens_per_text` shows; compare decoders at the same number. The
library's own max_length is 128 here. For hypotheses that are corrected it is `max_seq_length`, 32 for the
published pair.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config

from lvm.decoding.vec2text.loop import CorrectionLoop
from lvm.decoding.vec2text.repairs import build_inversion, import_vec2text


def vec2text_loop(
    t5: T5Config,
    dim: int,
    n: int = 512,
    batch: int = 128,
    max_length: int = 128,
    repeat_tokens: int = 16,
    device: str = "cpu",
    dtype: str = "float32",
    rounds: int = 3,
) -> dict[str, object]:
    """Texts a second that vec2text decodes without corrections.

    `t5` is the config of its T5, `dim` the dimension of the embeddings, and `n` of them are decoded, `batch` at
    a time. `repeat_tokens` is the number of prefix tokens of a vector. float32 and 16 prefix tokens are the
    library's defaults; its models can also be cast to bfloat16. One batch warms up; the median of `rounds` counts.
    """
    model = _random_model(t5, dim, repeat_tokens, max_length).to(device, getattr(torch, dtype))
    seconds, tokens = _time_rounds(CorrectionLoop(model, None, encoder=None), dim, n, batch, max_length, device, rounds)  # type: ignore[arg-type]
    return {
        "texts_per_second": round(n / statistics.median(seconds), 2),
        "seconds": [round(second, 3) for second in seconds],
        "tokens_per_text": round(tokens / n, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "n": n,
        "batch": batch,
        "max_length": max_length,
        "dtype": dtype,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _random_model(t5: T5Config, dim: int, repeat_tokens: int, max_length: int) -> Any:
    """vec2text's `InversionModel` with random weights that never end a text."""
    torch.manual_seed(0)
    model = build_inversion(_config(import_vec2text(), repeat_tokens, max_length), t5, _tokenizer(t5.vocab_size), dim)
    with torch.no_grad():
        model.encoder_decoder.get_output_embeddings().weight[:3] = 0  # no special token is ever the likeliest
    return model.eval()


def _time_rounds(loop: CorrectionLoop, dim: int, n: int, batch: int, max_length: int, device: str, rounds: int) -> tuple[list[float], int]:
    """Seconds of each round, and the tokens written in one."""
    settings = {**loop.gen_kwargs, "min_length": 1, "max_length": max_length}
    embeddings = torch.randn(n, dim, device=device)

    def decode(vectors: torch.Tensor) -> int:
        ids = loop.inversion_trainer.generate(inputs={"frozen_embeddings": vectors}, generation_kwargs=settings)
        loop.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return int((ids > 2).sum())

    seconds, tokens = [], 0
    with torch.no_grad():
        decode(embeddings[:batch])
        for _ in range(rounds):
            _wait(device)
            started = time.perf_counter()
            tokens = sum(decode(embeddings[start : start + batch]) for start in range(0, n, batch))
            _wait(device)
            seconds.append(time.perf_counter() - started)
    return seconds, tokens


def _config(vec2text: Any, repeat_tokens: int, max_length: int) -> Any:
    return vec2text.models.config.InversionConfig(
        model_name_or_path="t5",
        embedder_model_name="none",
        embedder_model_api=None,
        embedder_fake_with_zeros=False,
        embedder_no_grad=True,
        use_frozen_embeddings_as_input=True,
        encoder_dropout_disabled=False,
        decoder_dropout_disabled=False,
        embeddings_from_layer_n=None,
        use_lora=False,
        max_seq_length=max_length,
        num_repeat_tokens=repeat_tokens,
    )


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A unigram tokenizer like T5's, of made-up words."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁w{number}", -1.0) for number in range(size - 3))]
    core = Tokenizer(models.Unigram(pieces, unk_id=2))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Parse the arguments, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("d-model", 768), ("d-ff", 3072), ("layers", 12), ("heads", 12), ("d-kv", 64), ("vocab", 32128)):
        parser.add_argument(f"--{name}", type=int, default=default, help="of the T5; the default is t5-base's")
    parser.add_argument("--decoder-layers", type=int, help="the same as --layers by default")
    parser.add_argument("--feed-forward", default="relu", help="T5's feed_forward_proj: relu or gated-gelu")
    parser.add_argument("--untied", action="store_true", help="an output layer separate from the token embeddings")
    for name, default in (("dim", 768), ("n", 512), ("batch", 128), ("max-length", 128), ("repeat-tokens", 16), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    a = parser.parse_args()
    t5 = T5Config(
        vocab_size=a.vocab,
        d_model=a.d_model,
        d_ff=a.d_ff,
        d_kv=a.d_kv,
        num_layers=a.layers,
        num_decoder_layers=a.decoder_layers or a.layers,
        num_heads=a.heads,
        feed_forward_proj=a.feed_forward,
        decoder_start_token_id=0,
        tie_word_embeddings=not a.untied,
    )
    print(json.dumps(vec2text_loop(t5, a.dim, a.n, a.batch, a.max_length, a.repeat_tokens, a.device, a.dtype, a.rounds), indent=2))


if __name__ == "__main__":
    main()
