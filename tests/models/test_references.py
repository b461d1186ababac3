import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import BadReference
from models.references import Reference, checked_alias, is_reference, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("models:/risk@champion", Reference("risk", "champion", None)),
        ("risk@challenger", Reference("risk", "challenger", None)),
        ("models:/news-tone_2/17", Reference("news-tone_2", None, 17)),
        ("risk/1", Reference("risk", None, 1)),
    ],
)
def test_a_reference_is_read(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text if text.startswith("models:/") else str(reference) == f"models:/{text}"


@pytest.mark.parametrize(
    "text",
    [
        "", "risk", "models:/", "models:/risk", "models:/risk@", "models:/risk/", "models:/risk/0",
        "models:/risk/latest", "models:/risk/1/..", "models:/../risk@champion", "models:/risk@latest",
        "models:/risk@v2", "models:/risk@a b", "models:/risk@champion\n", "models:/Risk@champion",
        "models:/risk@champion/model.onnx", "models://risk/1", "models:/risk' OR 1=1 --/1", "runs:/abc/model",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadReference, match="such as models:/risk@champion or models:/risk/3"):
        parse_reference(text)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except BadReference:
        return
    assert parse_reference(str(reference)) == reference


def test_only_what_says_so_is_looked_for_in_the_registry() -> None:
    assert is_reference("models:/risk@champion")
    assert not any(map(is_reference, ("risk-20261122-1a2b3c4d", "models/risk", "/models:/risk")))


def test_aliases_are_names_that_mlflow_takes() -> None:
    assert checked_alias("champion") == "champion"
    for text in ("latest", "v1", "Champion", "", "a b", "x" * 65, "champion\n"):
        with pytest.raises(BadReference, match="the usual ones are champion and challenger"):
            checked_alias(text)
