"""Tracing is off unless it is set, and says what it lacks."""

import sys

import pytest
from pydantic import SecretStr

from moodline.shared.errors import SettingsError
from moodline.shared.settings import Settings, TracingSettings
from moodline.shared.tracing.spans import open_tracing

ENDPOINT = "http://127.0.0.1:4318/v1/traces"


def test_it_is_off_by_default_and_at_a_ratio_of_nothing() -> None:
    assert open_tracing(Settings().tracing) is None
    assert open_tracing(TracingSettings(endpoint=ENDPOINT, ratio=0)) is None


def test_while_it_is_off_the_packages_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert open_tracing(TracingSettings()) is None


@pytest.mark.parametrize("package", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"])
def test_without_the_packages_it_says_how_to_get_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"pip install 'moodline\[tracing\]'"):
        open_tracing(TracingSettings(endpoint=ENDPOINT, ratio=1))


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://collector/v1/traces", "http://user:s3cret@collector/v1/traces", "http://"]
)
def test_an_endpoint_that_cannot_be_used_is_refused_without_its_value(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="MOODLINE_TRACING_ENDPOINT") as error:
        open_tracing(TracingSettings(endpoint=endpoint))
    assert "s3cret" not in str(error.value)


def test_headers_that_cannot_be_used_are_refused_without_their_values() -> None:
    with pytest.raises(SettingsError, match="name=value") as error:
        open_tracing(TracingSettings(endpoint=ENDPOINT, ratio=1, headers=SecretStr("s3cret")))
    assert "s3cret" not in str(error.value)
