"""The reference pages name everything that there is, with its meaning."""

from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from moodline.shared.metrics import Metrics
from moodline.shared.settings import Settings, load_settings


def _settings() -> list[tuple[str, object, str]]:
    rows = []
    for name, field in Settings.model_fields.items():
        group = getattr(load_settings(), name)
        if isinstance(group, BaseModel):
            rows += [
                (f"MOODLINE_{name}_{key}".upper(), getattr(group, key), inner.description or "")
                for key, inner in type(group).model_fields.items()
            ]
        else:
            rows.append((f"MOODLINE_{name}".upper(), group, field.description or ""))
    return rows


@pytest.mark.parametrize(("variable", "default", "meaning"), _settings(), ids=lambda value: str(value)[:40])
def test_every_setting_is_documented_with_its_default(repo: Path, variable: str, default: object, meaning: str) -> None:
    rows = [line for line in (repo / "docs/settings.md").read_text().splitlines() if f"`{variable}`" in line]
    assert len(rows) == 1
    assert meaning
    assert meaning in rows[0]
    shown = default.get_secret_value() if isinstance(default, SecretStr) else default
    assert (f"`{shown}`" if shown not in (None, "") else "(empty)") in rows[0]


def test_every_metric_is_documented(repo: Path) -> None:
    page = (repo / "docs/metrics.md").read_text()
    families = list(Metrics().registry.collect())
    assert len(families) > 20
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        row = next((line for line in page.splitlines() if f"`{name}`" in line), None)
        assert row is not None, f"docs/metrics.md lacks {name}"
        assert family.documentation in row, f"docs/metrics.md has another meaning for {name}"


def test_no_page_names_a_metric_that_does_not_exist(repo: Path) -> None:
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in Metrics().registry.collect()}
    rows = [line for line in (repo / "docs/metrics.md").read_text().splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == names
