import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.bases import RECORD, WEIGHTS, identify, read_record, weights_sha256
from models.errors import BadBase, BadDataset
from models.lessons import Lesson
from models.pretraining import PretrainSettings, pretrain
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train
from tests.models.tiny import ignore, make_examples

TEXTS = ["the company says shares of its bank today"] * 40 + [example.text for example in make_examples(80)]


def settings_for(base: Path, **knobs: object) -> PretrainSettings:
    quick = {"epochs": 3, "learning_rate": 3e-3, "head_learning_rate": 1e-2, "batch_tokens": 256, "threads": 1}
    return PretrainSettings.model_validate({"base": str(base), **quick, **knobs})


def test_an_encoder_reads_text_and_becomes_a_base(tiny_base: Path, tiny_task: Task, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    out = tmp_path / "bases" / "read"
    record = pretrain(
        TEXTS, "texts.jsonl", settings_for(tiny_base), out, lambda what, done, total: said.append((done, total))
    )
    assert said == [(step, said[0][1]) for step in range(1, said[0][1] + 1)]
    losses = record.metrics["held_out_loss_of_epochs"]
    assert len(losses) == 3
    assert min(losses) < record.metrics["held_out_loss_before"]
    assert record.metrics["best_epoch"] == 1 + losses.index(min(losses))

    # Its lineage, and that it is what it says.
    assert read_record(out) == record
    assert identify("any", out).name == "read"
    assert record.parent is not None
    assert (record.parent.name, record.parent.sha256) == (str(tiny_base), weights_sha256(tiny_base))
    assert record.sha256 == weights_sha256(out) != record.parent.sha256
    assert (record.data[0].name, record.data[0].rows) == ("texts.jsonl", len(TEXTS))
    assert [path.name for path in out.parent.iterdir()] == ["read"]

    # It is fine-tuned like any other, and the release says where it comes from.
    task = tiny_task.model_copy(update={"base": str(out)})
    settings = TrainSettings(method="head", epochs=1, threads=1)
    checkpoint = train([Lesson(task, make_examples(40), "tone.jsonl")], settings, ignore)
    assert checkpoint.base.name == "read"
    assert checkpoint.base.parent == record.parent


def test_the_head_learns_first_and_token_embeddings_only_when_asked(tiny_base: Path, tmp_path: Path) -> None:
    words, query = "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"
    before = load_file(tiny_base / WEIGHTS)
    losses = []
    for share, embeddings_learn in ((0.0, False), (0.99, True)):
        knobs = {"epochs": 1, "batch_tokens": 64, "head_alone": share, "learn_embeddings": embeddings_learn}
        record = pretrain(TEXTS, "texts", settings_for(tiny_base, **knobs), tmp_path / str(share), ignore)
        losses.append(record.metrics["held_out_loss_before"])
        after = load_file(tmp_path / str(share) / WEIGHTS)
        assert not torch.equal(after[query], before[query])
        assert torch.equal(after[words], before[words]) != embeddings_learn
    assert losses[1] < losses[0] - 0.1  # the head knew something before the encoder was touched


def test_the_same_seed_gives_the_same_encoder(tiny_base: Path, tmp_path: Path) -> None:
    made = [
        pretrain(TEXTS, "texts", settings_for(tiny_base, epochs=1, seed=seed), tmp_path / str(number), ignore).sha256
        for number, seed in enumerate((1, 1, 2))
    ]
    assert made[0] == made[1] != made[2]


def test_it_works_for_an_encoder_of_mpnets_build_and_reads_long_texts_whole(tiny_mpnet: Path, tmp_path: Path) -> None:
    texts = [" ".join([text, *TEXTS[:20]]) for text in TEXTS]
    record = pretrain(texts, "long", settings_for(tiny_mpnet, epochs=2, max_tokens=64), tmp_path / "new", ignore)
    assert min(record.metrics["held_out_loss_of_epochs"]) < record.metrics["held_out_loss_before"]
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["model_type"] == "mpnet"


@pytest.mark.parametrize("texts", [[], ["one text"], ["!"] * 100, ["日本"] * 100], ids=["none", "one", "short", "unk"])
def test_too_little_text_is_refused(tiny_base: Path, tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(BadDataset, match="pre-training needs 20 and 1 at least"):
        pretrain(texts, "few", settings_for(tiny_base), tmp_path / "out", ignore)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_base_is_said_before_anything_is_learned(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadBase, match="reads 128 tokens at most"):
        pretrain(TEXTS, "texts", settings_for(tiny_base, max_tokens=129), tmp_path / "out", ignore)
    damaged = Path(shutil.copytree(tiny_base, tmp_path / "damaged"))
    record = pretrain(TEXTS, "texts", settings_for(damaged, epochs=1), tmp_path / "made", ignore)
    (damaged / RECORD).write_text(record.model_dump_json())
    with pytest.raises(BadBase, match=r"is not the file that base\.json speaks of"):
        pretrain(TEXTS, "texts", settings_for(damaged), tmp_path / "out", ignore)
