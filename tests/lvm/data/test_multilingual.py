"""Chinese and Arabic through a multilingual encoder: sentences stay whole, and what it cannot read is refused.

The folder is made on the spot by the libraries: a Unigram tokenizer as multilingual models have one, trained on the texts, and a small
transformer with random weights.
"""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from lvm.data.dataset import open_dataset
from lvm.data.encoders import Encoder, load_encoder
from lvm.data.extract import extract
from lvm.errors import InputError
from tests.support.corpora import write_lines
from tests.support.encoder_folders import save_encoder

CHINESE = [
    "春天来了，山谷里的雪慢慢融化，小溪又开始流动。",
    "村里的人们走出家门，在田里播种小麦和豆子。",
    "孩子们沿着河岸奔跑，看着鸭子在水面上游来游去！",
    "老人坐在门前的石凳上，谈论着去年的收成和远方的消息。",
    "谁还记得那场大水呢？",
    "那一年桥被冲走了，大家用了三个月才把它重新修好。",
    "现在新桥又高又宽，马车可以并排通过，商人从城里带来布匹、盐和书籍。",
    "傍晚的时候，炊烟从屋顶升起，狗在院子里叫，母亲们呼唤孩子回家吃饭。",
]
ARABIC = [
    "جاء الربيع وبدأ الثلج يذوب في الوادي وعاد الجدول إلى الجريان من جديد.",
    "خرج أهل القرية من بيوتهم ليزرعوا القمح والفول في الحقول.",
    "هل تذكر ذلك الفيضان الكبير؟",
    "في تلك السنة جرف الماء الجسر، وعمل الناس ثلاثة أشهر حتى أعادوا بناءه.",
    "ما أجمل هذا النهر!",
    "الجسر الجديد عال وعريض، تمر عليه العربات، ويحمل التجار القماش والملح والكتب من المدينة كل شهر.",
    "في المساء يرتفع الدخان من السطوح، وتنادي الأمهات الأطفال إلى البيت.",
]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A small encoder of Chinese and Arabic."""
    folder = tmp_path_factory.mktemp("multilingual")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = Tokenizer(models.Unigram())
    pieces.normalizer = normalizers.NFKC()
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(CHINESE + ARABIC, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>"))
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=128
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 140}
    torch.manual_seed(0)
    model = XLMRobertaModel(XLMRobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **size))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)  # the library's own beginning gives nearly the same vector to every text
    model.save_pretrained(folder / "parts")
    tokenizer.save_pretrained(folder / "parts")
    return load_encoder(save_encoder(folder / "whole", Transformer(str(folder / "parts")), Pooling(16)), dtype="float32")


def test_sentences_of_wrapped_chinese_and_arabic_stay_whole(multilingual: Encoder, tmp_path: Path) -> None:
    chinese, arabic = "".join(CHINESE), " ".join(ARABIC)
    texts = {
        "zh": "\n".join(chinese[i : i + 30] for i in range(0, len(chinese), 30)),
        "ar": "\u200f" + textwrap.fill(arabic, 60),
    }
    source = write_lines(tmp_path / "a.jsonl", [{"doc_id": name, "text": text} for name, text in texts.items()])
    done = extract([source], tmp_path / "out", multilingual)
    data = open_dataset(tmp_path / "out")
    found = {name: data.texts(np.arange(*data.starts[doc : doc + 2])) for doc, name in enumerate(data.doc_ids)}
    assert found == {"zh": CHINESE, "ar": ARABIC}
    assert done.manifest.skipped == [] and done.manifest.rules == 2
    assert len(np.unique(data.vectors.round(4), axis=0)) == len(CHINESE + ARABIC), "and the encoder tells them apart"


def test_a_script_that_the_encoder_does_not_know_is_refused_by_name(multilingual: Encoder, tmp_path: Path) -> None:
    thai = "สวัสดีตอนเช้า\nวันนี้อากาศดี\nเราไปตลาดกัน"
    source = write_lines(tmp_path / "a.jsonl", [{"doc_id": name, "text": f"{thai}\n{name}"} for name in ("ก", "ข")])
    with pytest.raises(InputError, match=r"reads no Thai: 8 of 8 chunks are mostly unknown tokens to it, as 'สวัสดีตอนเช้า': choose a multi"):
        extract([source], tmp_path / "out", multilingual)


def test_documents_and_chunks_that_minilm_cannot_read_are_left_out_and_listed(encoder: Encoder, tmp_path: Path) -> None:
    good = "The treasury is full.\nCommerce grows in every port.\nThe harvest was good."
    rows = [
        {"doc_id": "clean", "text": good.replace("full", "empty")},
        {"doc_id": "cats", "text": "🐱🐱🐱🐱\n🐱🐱🐱\nA cat."},
        {"doc_id": "hex", "text": f"{good}\nsha {'0123456789abcdef' * 75}"},
    ]
    done = extract([write_lines(tmp_path / "a.jsonl", rows)], tmp_path / "out", encoder)
    assert done.manifest.skipped == [
        {"doc_id": "cats", "reason": "text that the encoder cannot read: 2 of 3 chunks, emoji and symbols, '🐱🐱🐱🐱'"},
        {
            "doc_id": "hex",
            "reason": "chunks that the encoder cannot read: 1 of 4 chunks, words as long as these, 'sha 0123456789abcdef0123…'",
        },
    ]
    data = open_dataset(tmp_path / "out")
    assert data.doc_ids == ["clean", "hex"] and data.n_rows == 6
    with pytest.raises(InputError, match="holds another dataset"):
        extract([write_lines(tmp_path / "b.jsonl", rows[:1])], tmp_path / "out", encoder)
