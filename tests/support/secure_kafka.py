"""A broker that lets nobody in without TLS, a password and a permission."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.support.certificates import Certificates
from tests.support.servers import HOST, KafkaServer, free_port

ADMIN = "admin"
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecureKafka(KafkaServer):
    """SASL_SSL with SCRAM-SHA-512 and ACLs; a second listener, for the test alone, makes the users."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self._certificates = certificates
        self._back_door = free_port()

    def _properties(self) -> dict[str, object]:
        plain = super()._properties()
        controller = str(plain["listeners"]).partition(",")[2]
        files = self._certificates
        return plain | {
            "listeners": f"BACKDOOR://{HOST}:{self._back_door},SASL_SSL://{HOST}:{self.port},{controller}",
            "advertised.listeners": f"BACKDOOR://{HOST}:{self._back_door},SASL_SSL://{HOST}:{self.port}",
            "listener.security.protocol.map": "BACKDOOR:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BACKDOOR",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_LOGIN} required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": files.both,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": files.ca,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{ADMIN};User:ANONYMOUS",
        }

    def _answers(self) -> bool:
        return self.answers_at(f"{HOST}:{self._back_door}")

    def add_users(self, passwords: Mapping[str, str]) -> None:
        """Make users, or change their passwords."""
        admin = AdminClient({"bootstrap.servers": f"{HOST}:{self._back_door}", "log_level": 0})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        changes = [UserScramCredentialUpsertion(name, info, word.encode()) for name, word in passwords.items()]
        for done in admin.alter_user_scram_credentials(changes).values():
            done.result()

    def properties_of(self, user: str, password: str) -> dict[str, str]:
        """Return librdkafka's properties for a user."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self._certificates.ca),
        }

    def url_of(self, user: str, password: str) -> str:
        """Return the bus URL for a user."""
        properties = self.properties_of(user, password).items()
        return f"{self.url}?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in properties)

    def tool_config(self, path: Path, user: str, password: str) -> Path:
        """Write the file that Kafka's tools take with `--command-config`."""
        login = f'{_LOGIN} required username="{user}" password="{password}";'
        lines = ["security.protocol=SASL_SSL", "sasl.mechanism=SCRAM-SHA-512", f"sasl.jaas.config={login}"]
        path.write_text("\n".join([*lines, "ssl.truststore.type=PEM", f"ssl.truststore.location={self._certificates.ca}"]) + "\n")
        return path
