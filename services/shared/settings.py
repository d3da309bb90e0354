"""Settings of a service: read once from the environment, frozen, secrets never in their repr."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.shared.tokens import ISSUER


class ServiceSettings(BaseSettings):
    """What every service needs to know. Each field is the variable `STRONGROOM_<FIELD>`."""

    # An error about one setting would show the others with it, passwords too.
    model_config = SettingsConfigDict(env_prefix="STRONGROOM_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # Where callers reach the gateway, such as https://strongroom.example.com; no slash at the end.
    public_url: Annotated[str, StringConstraints(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*[^/?#\s])?)?$")] = ""
    # Where a service keeps files of its own; folders 0700, files 0600.
    data_dir: Path = Path(".strongroom")
    # `sqlite:///FILE` (each service adds its name to FILE) or `postgresql://…` (each has a schema). It may hold a
    # password.
    database_url: SecretStr = SecretStr("sqlite:///.strongroom/db/strongroom.db")
    # host:port to bind; port 0 takes a free one.
    auth_listen: str = "127.0.0.1:0"
    models_listen: str = "127.0.0.1:0"
    secrets_listen: str = "127.0.0.1:0"
    # host:port under which the other services are reached.
    auth_addr: str = "127.0.0.1:8091"
    models_addr: str = "127.0.0.1:8092"
    secrets_addr: str = "127.0.0.1:8093"
    # Folder of the service identities: `<name>.pem` (this service's private key, 0600) and `<name>.pub.pem` of all.
    identity_dir: Path = Path(".strongroom/keys")
    # Folder of `<name>.pem` (this service's certificate and key, 0600) and `ca.pem`: with it parts speak mutual TLS.
    pki_dir: Path | None = None
    # host:port of the Prometheus endpoint; none if empty.
    metrics_listen: str = ""
    # debug, info, warning or error.
    log_level: str = "info"
    # Requests handled at the same time; more wait for one of them to end.
    workers: Annotated[int, Field(ge=1)] = 32
    # Of them, those of one caller; more are refused. Three quarters if 0, so that others get a turn.
    caller_workers: Annotated[int, Field(ge=0)] = 0
    # Requests that wait; more are refused.
    waiting_calls: Annotated[int, Field(ge=1)] = 1024
    # Seconds that requests in flight get to finish when the service stops.
    drain_seconds: float = 20.0

    @field_validator("pki_dir", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        """Compose files pass on what is not set as an empty text, which would be the current folder."""
        return None if value == "" else value

    @property
    def calls_per_caller(self) -> int:
        """How many calls a caller may have under way."""
        return self.caller_workers or max(1, self.workers * 3 // 4)

    @property
    def issuer(self) -> str:
        """`iss` of access tokens."""
        return self.public_url or ISSUER

    def listen_address(self, service: str) -> str:
        """The host:port that the named service binds."""
        return str(getattr(self, f"{service}_listen"))
