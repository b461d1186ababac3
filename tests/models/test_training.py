from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from models.datasets import Example
from models.errors import BadBase, BadDataset
from models.evaluation import macro_f1, target_indices
from models.lessons import Lesson, subjects_of
from models.tasks import PACKAGED_BASE, Task
from models.train_settings import TrainSettings
from models.training import Checkpoint, _class_weights, encode, token_lengths, train
from tests.models.tiny import FILLER, ignore, make_examples, make_money

QUICK = TrainSettings(epochs=4, learning_rate=3e-3, batch_texts=16, threads=1)


def learn(task: Task, examples: list[Example], settings: TrainSettings, dev: list[Example] | None = None) -> Checkpoint:
    return train([Lesson(task, examples, "examples.jsonl", dev)], settings, ignore)


def logits_of(checkpoint: Checkpoint, texts: list[str]) -> np.ndarray:
    rows = []
    for window in encode(checkpoint.tokenizer, texts, checkpoint.max_tokens):
        ids = torch.tensor([window])
        with torch.inference_mode():
            rows.append(checkpoint.model(ids, torch.ones_like(ids)).numpy()[0])
    return np.stack(rows)


def graded_again(checkpoint: Checkpoint) -> list[float]:
    """Each head's macro-F1 on its development examples, of the weights that the checkpoint holds."""
    grades = []
    for head in checkpoint.heads:
        logits = logits_of(checkpoint, [example.text for example in head.dev_examples])[:, head.columns]
        grades.append(macro_f1(target_indices(head.labels, head.dev_examples), logits.argmax(axis=1), head.labels))
    return grades


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(method="full", epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True),
        TrainSettings(method="lora", epochs=8, learning_rate=1e-2, batch_texts=16, threads=1),
        TrainSettings(method="head", epochs=40, learning_rate=3e-2, batch_texts=16, threads=1),
    ],
    ids=lambda settings: settings.method,
)
def test_every_method_learns_and_returns_what_it_graded(tiny_task: Task, settings: TrainSettings) -> None:
    checkpoint = learn(tiny_task, make_examples(160), settings)
    (head,) = checkpoint.heads
    assert head.labels == ("bad", "good")
    assert not checkpoint.model.training
    assert head.dev_macro_f1 >= 0.8
    assert graded_again(checkpoint) == pytest.approx([head.dev_macro_f1])


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(method="full", epochs=8, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True),
        TrainSettings(method="head", epochs=60, learning_rate=3e-2, batch_texts=16, threads=1),
    ],
    ids=lambda settings: settings.method,
)
def test_two_tasks_share_an_encoder_and_both_are_learned(
    tiny_task: Task, money_task: Task, settings: TrainSettings
) -> None:
    lessons = [Lesson(tiny_task, make_examples(160), "tone.jsonl"), Lesson(money_task, make_money(90), "money.jsonl")]
    checkpoint = train(lessons, settings, ignore)
    assert [head.task.name for head in checkpoint.heads] == ["tone", "money"]
    assert [head.labels for head in checkpoint.heads] == [("bad", "good"), ("dollar", "euro", "yen")]
    assert [head.columns for head in checkpoint.heads] == [slice(0, 2), slice(2, 5)]
    assert all(head.dev_macro_f1 >= 0.8 for head in checkpoint.heads)
    assert graded_again(checkpoint) == pytest.approx([head.dev_macro_f1 for head in checkpoint.heads])


def test_head_only_leaves_the_encoder_as_it_was_and_full_does_not(tiny_task: Task, tiny_base: Path) -> None:
    from safetensors.torch import load_file

    before = load_file(tiny_base / "model.safetensors")
    for method, same in (("head", True), ("full", False)):
        settings = QUICK.model_copy(update={"method": method, "epochs": 1, "learn_embeddings": True})
        after = learn(tiny_task, make_examples(40), settings).model.encoder.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before) == same


def test_the_head_alone_learns_without_a_text_passing_the_encoder_twice(tiny_task: Task) -> None:
    runs: list[int] = []

    def count(module: torch.nn.Module, _inputs: object, _output: object) -> None:
        runs[-1] += isinstance(module, BertModel)

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        for epochs in (1, 5):
            runs.append(0)
            learn(tiny_task, make_examples(40), QUICK.model_copy(update={"method": "head", "epochs": epochs}))
    finally:
        hook.remove()
    assert runs[0] == runs[1] > 0


def test_token_embeddings_are_left_alone_by_default(tiny_task: Task, tiny_base: Path) -> None:
    from safetensors.torch import load_file

    before = load_file(tiny_base / "model.safetensors")
    settings = QUICK.model_copy(update={"epochs": 1})
    after = learn(tiny_task, make_examples(40), settings).model.encoder.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert "embeddings.word_embeddings.weight" not in changed
    assert "encoder.layer.0.attention.self.query.weight" in changed


def test_the_same_seed_gives_the_same_model_and_another_does_not(tiny_task: Task) -> None:
    texts = [example.text for example in make_examples(10, start=500)]
    runs = [
        logits_of(learn(tiny_task, make_examples(60), QUICK.model_copy(update={"seed": seed})), texts)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


def test_without_development_data_a_tenth_is_held_out(tiny_task: Task) -> None:
    examples = make_examples(60)
    (head,) = learn(tiny_task, examples, QUICK.model_copy(update={"epochs": 1})).heads
    assert len(head.dev_examples) == 6
    assert set(head.dev_examples) < set(examples)
    given = make_examples(8, start=900)
    (head,) = learn(tiny_task, examples, QUICK.model_copy(update={"epochs": 1}), given).heads
    assert head.dev_examples == tuple(given)


def test_development_data_with_an_unknown_label_is_refused(tiny_task: Task) -> None:
    with pytest.raises(BadDataset, match="'odd' is not among"):
        learn(tiny_task, make_examples(20), QUICK, [Example("x", "odd")])


def test_single_examples_leave_nothing_to_hold_out(tiny_task: Task) -> None:
    with pytest.raises(BadDataset, match="every label has a single example"):
        learn(tiny_task, make_examples(2), QUICK)


def test_training_stops_early_when_nothing_gets_better(tiny_task: Task) -> None:
    steps = []
    settings = QUICK.model_copy(update={"epochs": 50, "patience": 2})
    checkpoint = train(
        [Lesson(tiny_task, make_examples(160), "tone.jsonl")], settings, lambda what, done, total: steps.append(done)
    )
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) == 9 * (checkpoint.best_epoch + 2) < 9 * 50


def test_a_task_may_not_want_more_tokens_than_its_encoder_reads(tiny_task: Task) -> None:
    with pytest.raises(BadBase, match="reads 128 tokens at most, and the task's max_tokens is 200"):
        learn(tiny_task.model_copy(update={"max_tokens": 200}), make_examples(20), QUICK)


def test_weights_that_could_run_code_are_refused(tiny_task: Task, tiny_base: Path, tmp_path: Path) -> None:
    for path in tiny_base.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadBase, match="cannot be loaded"):
        learn(tiny_task.model_copy(update={"base": str(tmp_path)}), make_examples(20), QUICK)


def test_class_weights_lift_rare_labels_only_when_there_are_any(tiny_task: Task) -> None:
    def weights(counts: dict[str, int], power: float) -> list[float]:
        examples = [Example(f"{label} {row}", label) for label, count in counts.items() for row in range(count)]
        (subject,) = subjects_of([Lesson(tiny_task, examples, "x", examples)], seed=7)
        found: list[float] = _class_weights(subject, TrainSettings(class_weight_power=power)).tolist()
        return found

    assert weights({"a": 8, "b": 2}, 1.0) == pytest.approx([0.625, 2.5])  # the mean over the ten examples is 1
    assert weights({"a": 8, "b": 2}, 0.0) == [1.0, 1.0]
    assert weights({"a": 5, "b": 4}, 1.0) == [1.0, 1.0]


def test_a_teacher_alone_teaches_what_its_scores_say(tiny_task: Task) -> None:
    known, unlabelled = make_examples(8), [Example(one.text, "") for one in make_examples(152, start=8)]
    soft = np.array([[0.1, 0.9] if one.label == "good" else [0.9, 0.1] for one in make_examples(160)], np.float32)
    settings = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    lesson = Lesson(tiny_task, [*known, *unlabelled], "tone.jsonl", make_examples(40, start=300), soft)
    (head,) = train([lesson], settings, ignore).heads
    assert head.dev_macro_f1 >= 0.8


def test_the_teachers_weight_decides_whom_to_believe(tiny_task: Task) -> None:
    lies = np.array([[0.9, 0.1] if one.label == "good" else [0.1, 0.9] for one in make_examples(160)], np.float32)
    lesson = Lesson(tiny_task, make_examples(160), "tone.jsonl", make_examples(40, start=300), lies)
    for weight, believed in ((0.0, True), (1.0, False)):
        settings = TrainSettings(
            epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True, distill_weight=weight
        )
        checkpoint = train([lesson], settings, ignore)
        logits = logits_of(checkpoint, [example.text for example in make_examples(40, start=600)])
        right = (
            logits.argmax(axis=1) == [int(example.label == "good") for example in make_examples(40, start=600)]
        ).mean()
        assert (right > 0.7) == believed


def test_accumulated_batches_teach_as_one_large_batch_would(tiny_task: Task) -> None:
    texts = [example.text for example in make_examples(10, start=500)]

    def learned(batch_texts: int, accumulate: int) -> np.ndarray:
        settings = TrainSettings(
            epochs=2, learning_rate=1e-3, dropout=0, batch_texts=batch_texts, accumulate=accumulate, threads=1,
            class_weight_power=0, precision="float32", warmup=0,
        )  # fmt: skip
        return logits_of(learn(tiny_task, make_examples(64), settings, make_examples(8, start=300)), texts)

    whole, parts, alone = learned(64, 1), learned(16, 4), learned(16, 1)
    assert np.abs(parts - whole).max() < 0.2 * np.abs(alone - whole).max()


@pytest.mark.parametrize(("long_texts", "learns"), [("first", False), ("random", True), ("all", True)])
def test_what_stands_at_the_end_of_long_texts_is_learned_when_it_is_read(
    tiny_task: Task, long_texts: str, learns: bool
) -> None:
    beginning = " ".join(FILLER * 2)  # as long as a window
    examples = [Example(f"{beginning} {one.text}", one.label) for one in make_examples(160)]
    dev = [Example(f"{beginning} {one.text}", one.label) for one in make_examples(40, start=300)]
    settings = TrainSettings(
        epochs=8, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True, long_texts=long_texts
    )
    (head,) = learn(tiny_task, examples, settings, dev).heads
    assert (head.dev_macro_f1 > 0.75) == learns


def test_contrast_alone_puts_labels_so_far_apart_that_centroids_tell_them(tiny_task: Task) -> None:
    settings = TrainSettings(
        contrast_epochs=6, contrast_learning_rate=1e-2, head_start="centroids", learn_embeddings=True, batch_texts=16,
        epochs=1, learning_rate=1e-6, head_learning_rate=1e-6, threads=1,
    )  # fmt: skip
    (head,) = learn(tiny_task, make_examples(160), settings, make_examples(40, start=300)).heads
    assert head.dev_macro_f1 >= 0.8


def test_adversarial_training_learns_too_and_teaches_something_else(tiny_task: Task) -> None:
    texts = [example.text for example in make_examples(10, start=500)]
    plain = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    hardened = learn(tiny_task, make_examples(160), plain.model_copy(update={"fgm_epsilon": 0.2}))
    assert hardened.heads[0].dev_macro_f1 >= 0.8
    for knobs in ({"learn_embeddings": False}, {"method": "lora", "learn_embeddings": False}):
        short = plain.model_copy(update={"epochs": 1, **knobs})
        runs = [
            logits_of(learn(tiny_task, make_examples(40), short.model_copy(update={"fgm_epsilon": epsilon})), texts)
            for epsilon in (0.0, 0.2)
        ]
        assert np.abs(runs[0] - runs[1]).max() > 1e-4


@pytest.mark.parametrize("knobs", [{"agreement_weight": 1.0}, {"average_decay": 0.9}, {"vary_share": 0.5}], ids=str)
def test_agreeing_readings_averaged_weights_and_varied_texts_teach_too_and_something_else(
    knobs: dict[str, float], tiny_task: Task
) -> None:
    plain = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    texts = [example.text for example in make_examples(10, start=500)]
    without = learn(tiny_task, make_examples(160), plain)
    found = learn(tiny_task, make_examples(160), plain.model_copy(update=knobs))
    assert found.heads[0].dev_macro_f1 >= 0.8
    assert graded_again(found) == pytest.approx([found.heads[0].dev_macro_f1])  # kept is what was graded
    assert np.abs(logits_of(found, texts) - logits_of(without, texts)).max() > 1e-4


def test_max_tokens_is_a_knob(tiny_task: Task) -> None:
    checkpoint = learn(tiny_task, make_examples(40), QUICK.model_copy(update={"epochs": 1, "max_tokens": 12}))
    assert checkpoint.max_tokens == 12


def test_lengths_are_counted_in_the_bases_own_tokens(tiny_base: Path) -> None:
    assert token_lengths(str(tiny_base), ["profit", "profit rises today", "\ud83d"]) == [3, 5, 3]


def test_a_long_text_is_as_long_as_it_is_where_an_encoder_comes_with_a_limit() -> None:
    assert token_lengths(PACKAGED_BASE, ["word " * 400]) == [402]


def test_curves_get_loss_rate_and_grades(tiny_task: Task) -> None:
    seen: dict[str, list[int]] = {}

    class Kept:
        def step(self, values: Mapping[str, float], step: int) -> None:
            for name in values:
                seen.setdefault(name, []).append(step)

    lesson = Lesson(tiny_task, make_examples(64), "tone.jsonl", make_examples(16, start=300))
    train([lesson], QUICK.model_copy(update={"epochs": 5}), ignore, Kept())  # 5 epochs of 4 steps
    assert seen["train/loss"] == seen["train/learning_rate"] == [10, 20]
    assert seen["dev/macro_f1/tone"] == [4, 8, 12, 16, 20]


def test_a_checkpoint_is_frozen(tiny_task: Task) -> None:
    checkpoint = learn(tiny_task, make_examples(20), QUICK.model_copy(update={"epochs": 1}))
    assert replace(checkpoint, max_tokens=8).max_tokens == 8
    with pytest.raises(AttributeError):
        checkpoint.max_tokens = 9  # type: ignore[misc]
