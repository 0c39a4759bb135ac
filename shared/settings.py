"""All settings, as one frozen tree. Built once in the composition root and passed down; nothing else reads the environment.

Every setting is an environment variable: `MOODLINE_`, the group, the name, e.g. `MOODLINE_BUS_URL`.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from moodline.shared.errors import SettingsError
from moodline.shared.settings_groups import (
    AggregatorSettings,
    AlertsSettings,
    ApiSettings,
    BusSettings,
    ClassifierSettings,
    ClassifySettings,
    DetectorSettings,
    IngestSettings,
    LogSettings,
    MqttSettings,
    PreviewSettings,
    PushSettings,
    QuotasSettings,
    SecretsSettings,
    StoreSettings,
    TracingSettings,
    UploadsSettings,
    WorkerSettings,
)

__all__ = [
    "AggregatorSettings",
    "AlertsSettings",
    "ApiSettings",
    "BusSettings",
    "ClassifierSettings",
    "ClassifySettings",
    "DetectorSettings",
    "IngestSettings",
    "LogSettings",
    "MqttSettings",
    "PreviewSettings",
    "PushSettings",
    "QuotasSettings",
    "SecretsSettings",
    "Settings",
    "StoreSettings",
    "TracingSettings",
    "UploadsSettings",
    "WorkerSettings",
    "load_settings",
]


class Settings(BaseSettings):
    """The tree. Immutable."""

    model_config = SettingsConfigDict(
        env_prefix="MOODLINE_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        frozen=True,
        extra="ignore",
    )

    data_dir: Annotated[Path, Field(description="Where the embedded service keeps its database.")] = Path(
        "~/.local/share/moodline"
    )
    bus: BusSettings = BusSettings()
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    push: PushSettings = PushSettings()
    uploads: UploadsSettings = UploadsSettings()
    classify: ClassifySettings = ClassifySettings()
    preview: PreviewSettings = PreviewSettings()
    detector: DetectorSettings = DetectorSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    aggregator: AggregatorSettings = AggregatorSettings()
    api: ApiSettings = ApiSettings()
    quotas: QuotasSettings = QuotasSettings()
    alerts: AlertsSettings = AlertsSettings()
    mqtt: MqttSettings = MqttSettings()
    worker: WorkerSettings = WorkerSettings()
    secrets: SecretsSettings = SecretsSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()

    def bus_url(self) -> str:
        """Return the bus's URL with its secrets (Kafka's are properties in the query)."""
        url = self.bus.url.get_secret_value()
        return url if self.bus.password_file is None else _with_kafka_password(url, self.bus.password_file)

    def store_url(self) -> str:
        """Return the store's URL with its secrets; the data directory's database where none is set."""
        url = self.store.url.get_secret_value() or f"sqlite:///{self.data_path() / 'moodline.db'}"
        return url if self.store.password_file is None else _with_password(url, self.store.password_file)

    def data_path(self) -> Path:
        """Return the data directory, absolute."""
        return self.data_dir.expanduser().absolute()

    def api_url(self) -> str:
        """Return where the command line finds the API."""
        return self.api.url or f"http://{self.api.host}:{self.api.port}"


def _with_password(url: str, file: Path) -> str:
    """Return a URL of Redis with the password in a file. One that names a user or password already stays as it is."""
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme.startswith("redis") or "@" in rest:
        return url
    return f"{scheme}://:{_password(file, 'MOODLINE_STORE_PASSWORD_FILE')}@{rest}"


def _with_kafka_password(url: str, file: Path) -> str:
    """Return a URL of Kafka with the password in a file, if it names a user and no password."""
    if "sasl.username=" not in url or "sasl.password=" in url:
        return url
    return f"{url}&sasl.password={_password(file, 'MOODLINE_BUS_PASSWORD_FILE')}"


def _password(file: Path, setting: str) -> str:
    """Return the password in a file, as it stands in a URL."""
    try:
        return quote(file.expanduser().read_text().strip(), safe="")
    except (OSError, UnicodeError):
        raise SettingsError(f"{setting}: the file cannot be read") from None


def load_settings(**overrides: object) -> Settings:
    """Build the settings from the environment. Overrides are whole groups or top-level values.

    Raises:
        SettingsError: names every variable that cannot be used, and why; never its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what a keyword may hold
    except ValidationError as error:
        problems = "; ".join(
            f"MOODLINE_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        )
        raise SettingsError(f"settings cannot be used: {problems}") from None
