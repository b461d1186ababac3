from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import BadTask
from models.tasks import PACKAGED_BASE, LabelPolicy, Task, load_task, shipped_tasks


def test_three_tasks_are_shipped_under_their_own_names() -> None:
    assert shipped_tasks() == ("intent", "risk", "sentiment")
    assert [load_task(name).name for name in shipped_tasks()] == ["intent", "risk", "sentiment"]


def test_every_risk_but_benign_raises_an_alert() -> None:
    labels = load_task("risk").labels
    assert labels.pop("benign").alert_above is None
    assert labels
    assert all(policy.alert_above is not None for policy in labels.values())


def test_a_single_sentiment_raises_no_alert() -> None:
    assert all(policy.alert_above is None for policy in load_task("sentiment").labels.values())


def test_every_intent_has_a_queue_and_the_unknown_ones_a_person() -> None:
    labels = load_task("intent").labels
    assert len(labels) == 26
    assert all(policy.queue for policy in labels.values())
    assert labels["out_of_scope"].queue == labels["human_agent"].queue == "human"


@pytest.mark.parametrize(
    "label",
    ["card_lost_or_stolen", "unrecognised_charge", "pin_reset", "login_problem", "transfer_delayed", "refund_status"],
)
def test_nothing_about_money_or_security_is_answered_unread(label: str) -> None:
    assert load_task("intent").labels[label].template is None


def test_an_unknown_name_is_a_task_that_decides_nothing() -> None:
    task = load_task("complaints")
    assert task == Task(name="complaints")
    assert task.base == PACKAGED_BASE
    assert task.policy("anything") == LabelPolicy()


@pytest.mark.parametrize("name", ["", "Risk", "9lives", "risk.v2", "a" * 65, "risk\n", ".."])
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(BadTask, match="no task name"):
        load_task(name)


def test_a_task_file_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nmax_tokens = 64\n[labels.bad]\nalert_above = 0.9\nseverity = "high"\n')
    task = load_task(str(path))
    assert (task.max_tokens, task.policy("bad").alert_above, task.policy("bad").severity) == (64, 0.9, "high")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'name = "x"\nreview = 1',
            "review: no such field; allowed: name, max_tokens, base, review_below, false_acceptance, most_turned_away,"
            " labels, long_text",
        ),
        ('name = "x"\n[labels.a]\nalert = 1', "labels.a.alert: no such field; allowed: alert_above, severity"),
        ('name = "x"\n[labels.a]\nseverity = "huge"', "labels.a.severity: Input should be 'low', 'medium' or 'high'"),
        ('name = "x"\n[labels.a]\nalert_above = 60', "labels.a.alert_above: Input should be less than or equal to 1"),
        ('name = "x"\nmax_tokens = "many"', "max_tokens: Input should be a valid integer"),
        ("max_tokens = 64", "name: missing"),
        ('name = "x"\nlong_text = "last"', "long_text: Input should be 'mean' or 'max'"),
        ('name = "x"\nlong_text = "max"\n[labels.a]', 'long_text: Value error, "max" looks for labels that alert: set'),
        ('name = "x"\nlong_text = "max"\nlabels = 1', "labels: Input should be a valid dictionary"),
        ('name = "x"\n[training]\nepochz = 1', "training: Value error, epochz: no such knob; there are: method, base"),
        (
            'name = "x"\n[training]\nepochs = 0',
            "training: Value error, epochs: Input should be greater than or equal to 1",
        ),
        ("name = ", "not TOML"),
        ('name = "\udcff"', "not TOML in UTF-8"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadTask, match=r"wrong\.toml: ") as caught:
        load_task(str(path))
    assert message in str(caught.value)


def test_a_task_file_says_how_to_train(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nrecipe = "lora"\n[training]\nlearning_rate = 5e-4\nepochs = 3\n')
    task = load_task(str(path))
    assert (task.recipe, task.training) == ("lora", {"learning_rate": 5e-4, "epochs": 3})


def test_a_long_text_is_risky_where_it_is_riskiest_and_else_as_a_whole() -> None:
    assert {name: load_task(name).long_text for name in shipped_tasks()} == {
        "intent": "mean",
        "risk": "max",
        "sentiment": "mean",
    }


def test_a_release_finds_the_labels_that_alert_among_its_own() -> None:
    risk = load_task("risk")
    assert risk.alert_columns(("scam", "ham", "benign", "fraud")) == [0, 3]
    assert risk.alert_columns(("ham", "spam")) == []


def test_a_missing_or_huge_task_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTask, match="cannot be read"):
        load_task(str(tmp_path / "absent.toml"))
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (1 << 21))
    with pytest.raises(BadTask, match="larger than"):
        load_task(str(huge))


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_task("risk").name = "other"  # type: ignore[misc]
