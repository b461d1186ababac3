"""Settings: layers, and errors that name the key, what is allowed and where it was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from streams.settings import Settings, SettingsError, load_settings


def load(tmp_path: Path, toml: str) -> Settings:
    file = tmp_path / "my.toml"
    file.write_text(toml)
    return load_settings(file)


def test_the_shipped_defaults_are_whole() -> None:
    settings = load_settings(env={})
    assert settings.tasks == ("intent", "risk", "sentiment")
    assert settings.metrics.host == "127.0.0.1"


def test_file_over_defaults_and_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_BATCHING__MAX_BATCH_EVENTS", "7")
    settings = load(tmp_path, "[batching]\nmax_batch_events = 5\nmax_wait_ms = 3\n")
    assert (settings.batching.max_batch_events, settings.batching.max_wait_ms) == (7, 3)
    assert settings.batching.max_batch_tokens == load_settings(env={}).batching.max_batch_tokens


def test_a_source_of_ones_own_joins_the_shipped_ones(tmp_path: Path) -> None:
    toml = '[sources.tickets]\ntopic = "tickets"\nkind = "chat"\ntext = ["a.b", "c"]\ntasks = ["intent"]\n'
    settings = load(tmp_path, toml + "[sources.news]\nenabled = false\n")
    assert sorted(settings.active_sources) == ["chat", "tickets", "transactions"]
    assert settings.tasks == ("intent", "risk")


def test_lanes_follow_the_kind_of_source_unless_they_are_given(tmp_path: Path) -> None:
    def by_lane(settings: Settings) -> list[str]:
        return sorted(settings.sources, key=lambda name: (settings.sources[name].priority, name))

    assert by_lane(load_settings(env={})) == ["transactions", "chat", "news"]
    settings = load(tmp_path, '[sources.news]\nlane = "risk"\n[sources.transactions]\nlane = "bulk"\n')
    assert by_lane(settings) == ["news", "chat", "transactions"]


def test_nothing_is_shed_unless_a_source_says_so(tmp_path: Path) -> None:
    assert not load_settings(env={}).sheds
    assert load(tmp_path, "[sources.chat]\nshed_after_s = 60\n").sheds
    assert not load(tmp_path, "[sources.chat]\nshed_after_s = 60\nenabled = false\n").sheds


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings(env={}).broker.group = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[broker]\nbootstap = 'x:1'\n", ["broker.bootstap", "did you mean 'bootstrap'", "my.toml"]),
        ("[brokers]\n", ["brokers", "no such setting", "did you mean 'broker'"]),
        ("[models]\ndevice = 'tpu'\n", ["models.device", "'auto', 'cpu' or 'cuda'", "my.toml"]),
        ("[broker]\nbootstrap = 'nowhere'\n", ["broker.bootstrap", "my.toml"]),
        ("[sources.chat]\nshed_after_s = 0\n", ["sources.chat.shed_after_s", "greater than or equal to 1"]),
        ("[models]\nhold_limit_s = 0\n", ["models.hold_limit_s", "greater than or equal to 1"]),
        ("[batching]\nmax_wait_ms = 'soon'\n", ["batching.max_wait_ms", "number"]),
        ("[batching]\ntarget_p99_ms = 0\n", ["batching.target_p99_ms", "greater than or equal to 1"]),
        (
            "[batching]\nmin_batch_tokens = 99\nmax_batch_tokens = 98\n",
            ["batching: min_batch_tokens = 99 is above max_batch_tokens = 98", "my.toml"],
        ),
        ("[batching]\nmax_batch_delay_ms = 5\n", ["batching.max_batch_delay_ms", "Allowed: max_batch_events"]),
        ("[models]\nruntime = 'ONNX Runtime'\n", ["models.runtime", "my.toml"]),
        ("[sources.news]\nlane = 'urgent'\n", ["sources.news.lane", "'risk', 'chat' or 'bulk'"]),
        ("[metrics]\nport = 99999\n", ["metrics.port", "65535"]),
        ("[sources.news]\ntxt = ['a']\n", ["sources.news.txt", "did you mean 'text'"]),
        ("[sources.x]\ntopic = 'x'\n", ["sources.x.tasks", "required"]),
        ("[sources.news]\ntopic = 'alerts'\n", ["sources.news.topic", "feed on itself"]),
        ("[sources.news]\ntopic = 'chat'\n", ["is read by sources.news"]),
        ("[topics]\nalerts = 'routes'\n", ["share one topic"]),
        ("[broker]\nusername = 'me'\n", ["broker", "password"]),
        ("[broker]\nusername = 'me'\npassword = 'hunter2'\n", ["tls = true"]),
        ("[surge]\nratio = 1.2\n", ["surge", "resolve_ratio", "my.toml"]),
        ("not toml", ["my.toml", "TOML"]),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_BROKER__SESSION_TIMEOUT_S", "0")
    with pytest.raises(SettingsError, match="STREAMGAUGE_BROKER__SESSION_TIMEOUT_S"):
        load_settings()


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="STREAMGAUGE_BRKER__GROUP: no such setting"):
        load_settings(env={"STREAMGAUGE_BRKER__GROUP": "x"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml"):
        load_settings(tmp_path / "gone.toml")


def test_a_password_is_in_no_repr(tmp_path: Path) -> None:
    settings = load(tmp_path, "[broker]\ntls = true\nusername = 'me'\npassword = 'hunter2'\n")
    assert "hunter2" not in repr(settings) + str(settings)
