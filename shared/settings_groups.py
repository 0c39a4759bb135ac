"""The groups of settings. `moodline.shared.settings` puts them together; import them from there."""

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

_MiB = 1024 * 1024


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BusSettings(_Group):
    """Settings of the bus."""

    url: SecretStr = Field(SecretStr("memory://"), description="`memory://` (embedded) or `kafka://host:port[,host:port]`.")
    password_file: Path | None = Field(
        None,
        description="File with the password of Kafka's user, for a URL that names `sasl.username` and no password; read at each start.",
    )
    partitions: int = Field(
        16, ge=1, le=10_000, description="Partitions of every topic that is created; also the number of shards of streams."
    )
    memory_bytes: int = Field(128 * _MiB, ge=_MiB, description="Bound of the memory bus, per topic, in bytes.")
    prefetch_bytes: int = Field(16 * _MiB, ge=64 * 1024, description="What a consumer fetches ahead, per topic, in bytes.")


class StoreSettings(_Group):
    """Settings of the store of streams and timelines."""

    url: SecretStr = Field(
        SecretStr(""),
        description="`sqlite:///path`, `redis://host:port/0`, `redis+sentinel://host:port,host:port/service/0`, or "
        "`redis+cluster://host:port,host:port` (`rediss` for TLS); empty: `moodline.db` in the data directory.",
    )
    password_file: Path | None = Field(
        None, description="File with the password of Redis, for a URL without one; read at each start."
    )
    retention_1s_s: int = Field(2 * 86_400, ge=60, description="How long 1 s points are kept, in s.")
    retention_10s_s: int = Field(14 * 86_400, ge=60, description="How long 10 s points are kept, in s.")
    retention_1min_s: int = Field(60 * 86_400, ge=60, description="How long 1 min points are kept, in s.")
    retention_10min_s: int = Field(365 * 86_400, ge=60, description="How long 10 min points are kept, in s.")
    retention_1h_s: int = Field(1825 * 86_400, ge=60, description="How long 1 h points are kept, in s.")
    retention_faces_s: int = Field(
        0, ge=0, description="How long each face of each sampled frame is kept, in s; 0: they are not kept at all."
    )


class IngestSettings(_Group):
    """Reading files and cameras."""

    media_root: Path = Field(
        Path(), description="Files may be registered only below this directory; relative to where the service starts."
    )
    sample_fps: str = Field("5", description="Default frames per second to analyse, or `all`.")
    max_side_px: int = Field(1280, ge=64, le=8192, description="Default longest side of a frame on the bus, in px.")
    max_pixels: int = Field(50_000_000, ge=1, description="Larger decoded images are refused, in px.")
    jpeg_quality: int = Field(90, ge=30, le=100, description="JPEG quality of frames on the bus.")
    credit_frames: int = Field(128, ge=2, description="How many frames a file is read ahead of its timeline.")
    credit_bytes: int = Field(32 * _MiB, ge=_MiB, description="How many bytes a file is read ahead of its timeline.")
    stall_s: float = Field(
        30.0, gt=0, description="A file whose timeline stands still this long, with all credit used, is read again from there."
    )
    poison_tries: int = Field(
        3, ge=1, description="A frame of a file on which a worker failed this often is left out, as `corrupt`."
    )
    reconcile_s: float = Field(0.5, gt=0, description="How often the registry is compared with the running readers, in s.")
    schemes: str = Field(
        "file,synthetic,rtsp,rtsps,http,https,device,push", description="Schemes that may be registered and read, with commas."
    )
    allow_loopback: bool = Field(
        True, description="Whether cameras may have a loopback address. A redirect to one is refused in any case."
    )
    allow_networks: str = Field(
        "", description="Networks (CIDR, with commas) outside of which no camera is read; empty: no such limit."
    )
    deny_networks: str = Field("", description="Networks (CIDR, with commas) in which no camera is read. Link-local never is.")
    open_timeout_s: float = Field(10.0, gt=0, le=300, description="Longest time until a camera agrees to play, in s.")
    first_frame_timeout_s: float = Field(
        30.0, gt=0, le=300, description="Longest time from then to a camera's first frame, or for a keyframe after a loss, in s."
    )
    read_timeout_s: float = Field(5.0, gt=0, le=300, description="Longest time without anything from a live camera, in s.")
    backoff_min_s: float = Field(1.0, gt=0, description="First pause before a camera is tried again, in s.")
    backoff_max_s: float = Field(60.0, gt=0, description="Longest pause before a camera is tried again, in s.")
    tls_ca_file: Path | None = Field(
        None, description="Certificates (PEM) to trust for rtsps:// and https://; empty: those of the system."
    )
    clock_tolerance_s: float = Field(
        5.0, gt=0, description="A camera's clock that differs by more is not trusted with the time of day, in s."
    )
    file_memory_bytes: int = Field(
        2048 * _MiB, ge=256 * _MiB, description="Most memory that the reading of one file may take, in bytes."
    )
    camera_memory_bytes: int = Field(
        1024 * _MiB, ge=128 * _MiB, description="Most memory that the reading of one camera may take, in bytes."
    )


class PushSettings(_Group):
    """Frames that devices and browsers bring to the API."""

    max_bytes: int = Field(8 * _MiB, ge=64 * 1024, le=16 * _MiB, description="Largest JPEG that is taken, in bytes.")
    max_streams: int = Field(64, ge=1, le=10_000, description="Most streams that one API process takes frames of at a time.")
    body_timeout_s: float = Field(10.0, gt=0, le=300, description="Longest time in which a pushed frame must have arrived, in s.")
    silence_s: float = Field(
        60.0, gt=0, le=86_400, description="A pushed stream without a frame for this long is `pending` again, in s."
    )


class UploadsSettings(_Group):
    """Files that are uploaded to the media root."""

    max_bytes: int = Field(2048 * _MiB, ge=1, description="Largest file that may be uploaded, in bytes.")
    keep_free_bytes: int = Field(1024 * _MiB, ge=0, description="What an upload must leave free on the disk, in bytes.")
    max_at_once: int = Field(4, ge=1, le=1000, description="Most uploads that one API process takes at the same time.")
    idle_timeout_s: float = Field(30.0, gt=0, le=3600, description="Longest time without a byte of an upload, in s.")
    probe_timeout_s: float = Field(20.0, gt=0, le=600, description="Longest time to find out whether an upload is a video, in s.")
    keep_s: float = Field(86_400.0, ge=60, description="How long an upload that no stream names is kept, in s.")


class ClassifySettings(_Group):
    """Pictures that are classified at once, in the API's process."""

    max_bytes: int = Field(16 * _MiB, ge=64 * 1024, description="Most bytes of all pictures in one request together.")
    max_pictures: int = Field(16, ge=1, le=256, description="Most pictures in one request.")
    max_waiting: int = Field(
        8, ge=0, le=1000, description="Most requests under way in one API process, the one at work included; 0: none is taken."
    )
    body_timeout_s: float = Field(20.0, gt=0, le=300, description="Longest time in which a request must have arrived, in s.")


class PreviewSettings(_Group):
    """Pictures of streams whose preview is switched on: in memory only, and never in the store."""

    fps: float = Field(5.0, gt=0, le=30, description="Most pictures per second of a stream, and to one who watches.")
    max_side_px: int = Field(640, ge=64, le=8192, description="Pictures are reduced to at most this on the longer side, in px.")
    role: Literal["viewer", "operator", "admin"] = Field("operator", description="Least role that may see pictures.")
    max_viewers: int = Field(16, ge=1, le=1000, description="Most who look at pictures of one API process at a time.")


class DetectorSettings(_Group):
    """Finding faces."""

    model: str = Field(
        "face-small",
        description="Name of a detector in `models/`, a path to such a folder, an ONNX file for OpenCV's FaceDetectorYN (YuNet), "
        "or `haar` for the cascade of OpenCV.",
    )
    side_px: int = Field(480, ge=32, le=4096, description="Longer side of the reduced image that is searched, in px.")
    tiles: int = Field(
        0,
        ge=0,
        le=8,
        description="In how many overlapping tiles along its longer side a picture is searched, each reduced to `side_px` by itself, "
        "and as a whole as well: finds smaller faces for more time. 1: never in tiles; 0: only pictures whose sides differ by more "
        "than 2:1.",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="Least score of a face; empty: the model's own, of an ONNX file 0.7. Haar takes none."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers that Moodline's own detector computes with; auto: bfloat16 where the processor has it, else float32. "
        "Workers on unlike processors answer more alike with float32.",
    )
    min_face_px: int = Field(16, ge=4, description="Least width of a face in the reduced image, in px.")
    max_faces: int = Field(64, ge=1, le=1000, description="At most this many faces per frame, best scores first.")
    threads: int = Field(0, ge=0, le=256, description="Frames searched at the same time; 0: one per core.")
    batch_frames: int = Field(
        16, ge=1, le=1024, description="Most frames of files taken from the bus at a time; fewer when each takes long."
    )
    linger_ms: int = Field(5, ge=0, description="How long a batch waits for more frames after its first, in ms.")
    age_budget_s: float = Field(2.0, gt=0, description="Live frames older than this are passed on unprocessed, in s.")


class ClassifierSettings(_Group):
    """Classifying emotions."""

    model: str = Field("fer-2-small", description="Name of a folder in `models/`, or a path to one.")
    models_dir: Path | None = Field(
        None, description="Folder with further models, one folder each; empty: only those that come with Moodline."
    )
    batch_size: int = Field(8, ge=1, le=4096, description="Fixed batch shape of the network; shorter batches are padded.")
    batch_messages: int = Field(
        64, ge=1, le=4096, description="Most messages of files taken from the bus at a time; fewer when each takes long."
    )
    linger_ms: int = Field(20, ge=0, description="How long a batch waits for more messages after its first, in ms.")
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the network; 0: one per core.")
    age_budget_s: float = Field(2.0, gt=0, description="Live frames older than this are passed on unclassified, in s.")
    engine: Literal["auto", "openvino", "tensorflow"] = Field(
        "auto", description="What runs the network; auto: TensorFlow where it is installed and sees a GPU, else OpenVINO."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers that OpenVINO computes with; auto: bfloat16 where the processor has it, else float32. Workers on "
        "unlike processors answer more alike with float32.",
    )


class AggregatorSettings(_Group):
    """Building timelines. All aggregators of a deployment must have the same values."""

    batch_messages: int = Field(256, ge=1, le=10_000, description="Messages taken from the bus at a time.")
    linger_ms: int = Field(20, ge=0, description="How long a batch waits for more messages after its first, in ms.")
    smoothing_ms: int = Field(1000, ge=0, le=60_000, description="Time constant of the per-track smoothing, in ms.")
    iou_min: float = Field(0.3, gt=0, lt=1, description="Least overlap (intersection over union) of a face with a track.")
    min_quality: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Least quality of a face from which an expression is read, 0 to 1 (docs/detector.md); other faces are counted as "
        "`unreadable`. 0: all are read.",
    )
    track_lost_ms: int = Field(
        1500, ge=0, le=600_000, description="A track that has not been seen for this long ends, in ms of event time."
    )


class ApiSettings(_Group):
    """The HTTP API."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0: any free one.")
    url: str = Field("", description="Where the command line finds the API; empty: `http://HOST:PORT`.")
    key: SecretStr = Field(SecretStr(""), description="API key that the command line asks with; the service does not use it.")
    max_points: int = Field(5000, ge=1, description="Most points in one timeline answer.")
    timeline_cache_mb: int = Field(
        128, ge=0, description="Memory that written parts of timelines may take, in MB, for those who ask again; 0: none."
    )
    access: Literal["auto", "keys", "open"] = Field(
        "auto",
        description="Who needs a key. `auto`: nobody, as long as the API listens on loopback and no key was made, else everybody; "
        "`keys`: everybody; `open`: nobody, so everybody who reaches the port may do everything.",
    )
    session_s: int = Field(7 * 86_400, ge=60, description="How long a browser stays signed in, in s.")
    rate_per_s: float = Field(
        200.0, ge=0, description="Requests per second of one key (where none is needed: address), on average; 0: any number."
    )
    rate_burst: int = Field(1000, ge=1, description="Requests of one key or address that may come at once.")
    cors_origins: str = Field(
        "", description="Origins (`https://host`, with commas) whose pages may use the API with a key of their own; empty: none."
    )
    hosts: str = Field(
        "",
        description="Host names (with commas) under which an API that asks for no key answers, besides `localhost`, addresses and "
        "the host of the API's URL.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses and networks (CIDR, with commas) of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
        "believed; empty: nobody's.",
    )
    max_connections: int = Field(1000, ge=10, le=100_000, description="Most connections that are open at a time.")
    max_connections_per_address: int = Field(
        250, ge=1, le=100_000, description="Most connections of one address; trusted proxies have no such limit."
    )
    head_timeout_s: float = Field(
        10.0, gt=0, le=300, description="Longest time in which a request's head must have arrived, in s."
    )
    audit_keep_s: int = Field(
        365 * 86_400, ge=86_400, description="How long entries of the audit log are kept, in s; never more than 100,000 of them."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in filter(None, map(str.strip, text.split(","))):
            try:
                ipaddress.ip_network(part)
            except ValueError:
                raise ValueError("must be addresses and networks such as 10.0.0.2 or 10.0.0.0/24, with commas") from None
        return text


class QuotasSettings(_Group):
    """The limits of one key, or of one address where no key is needed."""

    streams_per_key: int = Field(2000, ge=1, description="Most streams that one key may have registered.")
    rules_per_key: int = Field(500, ge=1, description="Most alert rules that one key may have made.")
    uploads_per_key: int = Field(2, ge=1, description="Most uploads of one key that one API process takes at the same time.")
    upload_bytes_per_key: int = Field(
        200 * 1024 * _MiB, ge=1, description="Most bytes of uploaded files that one key may have on the disk."
    )
    sessions_per_key: int = Field(32, ge=1, le=1000, description="Most browsers that are signed in with one key.")
    requests_per_key: int = Field(
        256, ge=1, description="Most requests, event streams and web sockets of one key that one API process answers at a time."
    )


class AlertsSettings(_Group):
    """Alert rules and their webhooks; they are evaluated wherever the API runs."""

    enabled: bool = Field(
        True, description="Whether this process judges rules and sends webhooks; the API for rules is always on."
    )
    interval_s: float = Field(1.0, gt=0, le=60, description="How often rules are judged and webhooks sent, in s.")
    webhook_allow_loopback: bool = Field(False, description="Whether webhooks may go to a loopback address.")
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks may go to private networks, besides those that are allowed by name."
    )
    webhook_allow_networks: str = Field(
        "", description="Networks (CIDR, with commas) outside of which no webhook goes; empty: no such limit."
    )
    webhook_deny_networks: str = Field(
        "", description="Networks (CIDR, with commas) to which no webhook goes. Link-local is never reached."
    )
    webhook_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest time for one delivery of a webhook, in s.")
    webhook_attempts: int = Field(12, ge=1, le=100, description="Attempts to deliver before a webhook is given up.")
    webhook_backoff_min_s: float = Field(2.0, gt=0, description="First pause before a webhook is tried again, in s.")
    webhook_backoff_max_s: float = Field(3600.0, gt=0, description="Longest pause before a webhook is tried again, in s.")


class MqttSettings(_Group):
    """States, points and alerts on an MQTT broker; needs the extra `mqtt`. Published wherever the API runs, by one process."""

    url: SecretStr = Field(
        SecretStr(""), description="Broker: `mqtt://user:password@host:1883`, or `mqtts://` for TLS; empty: nothing is published."
    )
    topic_prefix: str = Field("moodline", pattern=r"^[^+#\x00]+$", description="First part of all topics.")
    discovery_prefix: str = Field(
        "homeassistant",
        pattern=r"^[^+#\x00]*$",
        description="Where Home Assistant looks for entities; empty: it is told of none.",
    )
    client_id: str = Field("", max_length=65_535, description="Client id; empty: the broker gives one.")
    tls_ca_file: Path | None = Field(None, description="Certificates (PEM) to trust for `mqtts://`; empty: those of the system.")


class WorkerSettings(_Group):
    """Settings of all workers."""

    poison_limit: int = Field(100, ge=1, description="Messages in a row that cannot be used after which a worker is not ready.")
    stream_metrics: int = Field(
        100, ge=0, le=10_000, description="Most streams of which a process has metrics of their own; 0: none has."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics and health server of a distributed worker.")
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of the metrics and health server of a distributed worker; 0: none."
    )


class SecretsSettings(_Group):
    """Sealing of camera passwords."""

    key: SecretStr = Field(
        SecretStr(""),
        description="Key that seals camera passwords, as `moodline key` prints it; several with commas: the first seals, all "
        "open. Empty: the embedded service makes one in its data directory.",
    )


class TracingSettings(_Group):
    """Traces of single frames, by OpenTelemetry; needs the extra `tracing`."""

    endpoint: str = Field(
        "", description="Where spans are sent, by OTLP over HTTP, such as `http://collector:4318/v1/traces`; empty: no tracing."
    )
    ratio: float = Field(
        0.001, ge=0, le=1, description="Share of frames that are traced; decided once, where they are published."
    )
    headers: SecretStr = Field(
        SecretStr(""),
        description="Headers of each request to the endpoint, `name=value` with commas, such as a collector's token.",
    )


class LogSettings(_Group):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    format: Literal["text", "json"] = Field("text", description="One line of text, or one JSON object, per event.")
