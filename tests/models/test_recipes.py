import re

import pytest

from models.errors import BadKnob
from models.recipes import RECIPES, Chosen, choose, knobs_of, settings_for, teacher_recipe
from models.tasks import Task
from models.train_settings import TrainSettings, settings_of

SHORT = [10] * 100
TASK = Task(name="tone")


def labels(**counts: int) -> list[str]:
    return [label for label, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("data", "lengths", "recipe", "why"),
    [
        (labels(a=10, b=10, c=300), SHORT, "few-shot", "half of the labels have 10 examples or fewer"),
        (labels(a=300, b=200), [10] * 70 + [400] * 30, "long", "30% of the texts are longer than 128 tokens"),
        (
            labels(a=300, b=200),
            [10] * 90 + [400] * 10,
            "standard",
            "250 examples a label .*, 1.5 of .*, 10% long texts",
        ),
        (labels(ham=3300, spam=300), SHORT, "imbalanced", "11.0 examples of 'ham' for one of 'spam'"),
        (labels(a=300, b=60), SHORT, "standard", "5.0 of the commonest for one of the rarest"),
        ([*labels(a=10, b=12), *[""] * 500], SHORT, "few-shot", "11 examples or fewer"),  # no label is no label
    ],
)
def test_the_data_decide_and_the_choice_says_why(data: list[str], lengths: list[int], recipe: str, why: str) -> None:
    chosen = choose(data, lengths, 128)
    assert chosen.recipe == recipe
    assert re.search(why, chosen.why), chosen.why


@pytest.mark.parametrize(
    ("data", "lengths", "recipe"),
    [
        (labels(a=300, b=200), SHORT, "taught"),
        (labels(ham=3300, spam=300), SHORT, "taught"),
        (labels(a=10, b=10), SHORT, "few-shot"),
        (labels(a=300, b=200), [400] * 100, "long"),
        (labels(a=6000, b=6000), [60] * 100, "standard"),  # 720,000 tokens
        (labels(a=30000, b=3000), [60] * 100, "imbalanced"),
    ],
)
def test_a_larger_encoder_teaches_what_it_learns_in_a_reasonable_time(
    data: list[str], lengths: list[int], recipe: str
) -> None:
    assert choose(data, lengths, 128, teacher_there=True).recipe == recipe
    assert choose(data, lengths, 128).recipe != "taught"


def test_few_examples_are_taught_where_there_are_texts_without_labels_to_teach_them_by() -> None:
    few, many = labels(a=10, b=12, c=300), labels(a=300, b=200)
    with_more = [*few, *[""] * 500]
    assert choose(with_more, SHORT, 128, teacher_there=True).recipe == "taught"
    assert choose(with_more, SHORT, 128).recipe == "few-shot"
    assert teacher_recipe(with_more) == "few-shot-teacher"
    assert teacher_recipe(many) == "teacher"


def test_much_text_is_read_fewer_times_and_the_choice_says_so() -> None:
    much = choose(labels(a=30_000, b=30_000), [50] * 100, 128)
    assert (much.recipe, much.epochs) == ("standard", 2)
    assert "2 epochs, not 10, of 3,000,000 tokens each" in much.why
    long = choose(labels(a=3_000, b=2_000), [900] * 100, 128)  # its windows have 256
    assert (long.recipe, long.epochs) == ("long", 4)
    assert choose(labels(a=300, b=200), SHORT, 128).epochs is None
    assert settings_for(TASK, None, {}, lambda: much)[0].epochs == 2
    assert settings_for(TASK, None, {"epochs": 9}, lambda: much)[0].epochs == 9


@pytest.mark.parametrize("labelled", [labels(a=10, b=12), labels(a=300, b=200)])
def test_texts_without_labels_cost_epochs_and_not_the_teacher(labelled: list[str]) -> None:
    with_more = [*labelled, *[""] * 50_000]
    chosen = choose(with_more, [50] * 100, 128, teacher_there=True)
    assert (chosen.recipe, chosen.epochs) == ("taught", 2)
    assert choose([*labelled, *[""] * 500], SHORT, 128, teacher_there=True).epochs is None


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_one_that_can_be(name: str) -> None:
    settings = settings_of(knobs_of(name), name)
    assert settings.preset[0] >= 1
    assert RECIPES[name].purpose


def never() -> Chosen:
    raise AssertionError("the data need not be looked at")


def test_who_sets_a_knob_last() -> None:
    task = Task(name="tone", recipe="lora", training={"epochs": 3, "lora_rank": 4})
    settings, chosen = settings_for(task, None, {"epochs": "2", "seed": 5}, never)
    assert chosen == Chosen("lora", "the file of task tone says so")
    assert (settings.method, settings.lora_rank, settings.epochs, settings.seed) == ("lora", 4, 2, 5)
    settings, chosen = settings_for(task, "few-shot", {}, never)
    assert chosen == Chosen("few-shot", "asked for")
    assert (settings.contrast_epochs, settings.epochs) == (RECIPES["few-shot"].knobs["contrast_epochs"], 3)
    settings, chosen = settings_for(TASK, None, {"method": "head"}, never)
    assert chosen == Chosen("head", "method head was asked for")
    assert settings == TrainSettings(method="head")
    settings, chosen = settings_for(TASK, None, {"method": "full"}, lambda: Chosen("quick", "because"))
    assert chosen == Chosen("quick", "because")
    assert settings.epochs == RECIPES["quick"].knobs["epochs"]


@pytest.mark.parametrize(
    ("recipe", "given", "message"),
    [
        ("magic", {}, "recipe 'magic': no such recipe; there are: standard, taught, few-shot"),
        ("quick", {"epochz": 3}, "recipe quick: epochz: no such knob; there are: method, base, start, max_tokens"),
        ("quick", {"epochs": "many"}, "recipe quick: epochs: .*valid integer.*, found 'many'"),
        ("quick", {"layer_decay": 0}, "recipe quick: layer_decay: .*greater than 0, found 0"),
        ("robust", {"method": "head"}, "recipe robust: .*fgm_epsilon: with method head no gradient reaches"),
        ("lora", {"learn_embeddings": True}, "recipe lora: .*learn_embeddings: with method lora they do not learn"),
    ],
)
def test_what_cannot_be_says_what_can(recipe: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(BadKnob, match=message):
        settings_for(TASK, recipe, given, never)


def test_a_recipe_whose_texts_vary_goes_with_methods_that_read_the_same_windows() -> None:
    given: tuple[dict[str, object], ...] = ({}, {"method": "head"}, {"long_texts": "all"}, {"vary_share": 0.0})
    assert [settings_for(TASK, "standard", knobs, never)[0].varies for knobs in given] == [
        True,
        False,
        False,
        False,
    ]
