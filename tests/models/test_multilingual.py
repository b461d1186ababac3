"""An encoder of the kind that a multilingual base is: a table of pieces of any script, `<s>` and `</s>`, padding 1."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from models.classifier import Classifier
from models.datasets import Example
from models.explanations import explain
from models.export import make_release
from models.lessons import Lesson
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train
from tests.models.tiny import ignore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
WORDS = {
    "good": ("增长", "増益", "증가", "рост", "نمو", "profit"),
    "bad": ("亏损", "赤字", "손실", "убыток", "خسارة", "loss"),
}
AROUND = ("公司今天 {}", "同社は{}と発表", "오늘 {} 발표", "сегодня {} банка", "اليوم {} الشركة", "the bank: {} 🙂")


def examples(count: int, start: int = 0) -> list[Example]:
    """Words of five scripts in sentences of any other, numbered."""
    rows = []
    for row in range(start, start + count):
        label = ("good", "bad")[row % 2]
        word = WORDS[label][row // 2 % len(WORDS[label])]
        rows.append(Example(f"{AROUND[row // 3 % len(AROUND)].format(word)} {row}", label))
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multilingual")
    letters = sorted({char for one in examples(400) for char in one.text if not char.isspace()} - {"🙂"})
    pieces = [*SPECIAL, "▁", *letters]
    tokenizer = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=SPECIAL["<unk>"], byte_fallback=False))
    tokenizer.normalizer = NFKC()
    tokenizer.pre_tokenizer = Metaspace()
    ends = [("<s>", SPECIAL["<s>"]), ("</s>", SPECIAL["</s>"])]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", pair=None, special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    task = Task(name="tone", max_tokens=32, base=str(base))
    settings = TrainSettings(epochs=10, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    checkpoint = train([Lesson(task, examples(240), "tone.jsonl")], settings, ignore)
    directory = make_release(checkpoint, "test", tmp_path_factory.mktemp("release") / "tone", ignore)
    return Classifier.load(directory, task, "cpu", "onnxruntime-fp32")


def test_it_learns_text_of_every_script(classifier: Classifier) -> None:
    later = examples(120, start=1000)
    scores = classifier.classify([one.text for one in later])
    found = [classifier.labels[column] for column in scores.argmax(axis=1)]
    assert np.mean([label == one.label for label, one in zip(found, later, strict=True)]) >= 0.95


@pytest.mark.parametrize(
    "text", ["公司今天 亏损 7", "اليوم خسارة الشركة 8", "同社は赤字と発表 🙂", "сегодня убыток банка"]
)
def test_what_a_score_rests_on_is_told_by_characters_of_the_text(classifier: Classifier, text: str) -> None:
    found = explain(classifier, text)
    assert found.label == "bad"
    assert all(0 <= one.start < one.end <= after.start for one, after in pairwise(found.words))
    read = "".join(text[word.start : word.end] for word in found.words)
    assert read == "".join(text.split())
    assert max(word.weight for word in found.words) > 0
