"""The client.

    from strongroom import Client

    with Client("http://127.0.0.1:8080", api_key=key) as client:
        client.models.push("scorer", "weights.safetensors", version="v1")
        client.aliases.set("scorer", "champion", "v1")
        client.models.pull("scorer", "here/", alias="champion")
        password = client.secrets.get("prod/db").data["password"]
        reader = client.keys.create("ci", permission_set="read_only").key

Methods return the messages of the protos in `strongroom.*.v1` and raise `strongroom.errors.StrongroomError`. Every call
has a deadline. A call that the rate limit refused is made again when the server says so; calls that can be repeated
without harm are, with growing random waits, while the server is away. After several calls in a row that reached nobody
the next ones fail at once with `CircuitOpen`, which says when one is made again.
"""

from pathlib import Path
from types import TracebackType

from strongroom.client.access import Access
from strongroom.client.admin import Admin
from strongroom.client.aliases import Aliases
from strongroom.client.artifacts import Artifacts
from strongroom.client.audit import Audit
from strongroom.client.catalog import Catalog
from strongroom.client.configs import Configs
from strongroom.client.jobs import Jobs
from strongroom.client.keys import Keys
from strongroom.client.managers import Managers
from strongroom.client.ml import Ml
from strongroom.client.models import Models
from strongroom.client.providers import Providers
from strongroom.client.root_key import RootKey
from strongroom.client.rotation import Rotation
from strongroom.client.secret_rotation import SecretRotation
from strongroom.client.secrets import Secrets
from strongroom.client.sessions import Sessions
from strongroom.client.stores import Stores
from strongroom.client.tokens import Tokens
from strongroom.client.usage import Usage
from strongroom.client.users import Users
from strongroom.connection import DEFAULT_URL, Connection
from strongroom.session import TokenStore


class Client:
    """A Strongroom, seen by one caller. Safe to use from several threads; close it, or use it as a context manager.

    Args:
        url: `http://HOST:PORT` or `https://HOST[:PORT]`.
        api_key: an API key; or
        token: an access token; or
        session: where the tokens of a user's session are kept. Without any, `client.sessions.sign_in` begins one.
        direct: whether weights may go past the gateway to a Strongroom of the same user on the same machine.
        ca_file: the authorities that are believed about `https`, in PEM: the `ca.pem` of `strongroom pki`.
            STRONGROOM_CA_FILE if not given, and gRPC's own list without that.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        token: str | None = None,
        session: TokenStore | None = None,
        direct: bool = True,
        ca_file: Path | str | None = None,
    ) -> None:
        self._connection = Connection(url, api_key=api_key, token=token, direct=direct, ca_file=ca_file)
        self.models = Models(self._connection)
        self.aliases = Aliases(self._connection)
        self.catalog = Catalog(self._connection)
        self.artifacts = Artifacts(self._connection)
        self.configs = Configs(self._connection)
        self.jobs = Jobs(self._connection)
        self.ml = Ml(self._connection)
        self.managers = Managers(self._connection)
        self.rotation = Rotation(self._connection)
        self.secrets = Secrets(self._connection)
        self.providers = Providers(self._connection)
        self.secret_rotation = SecretRotation(self._connection)
        self.keys = Keys(self._connection)
        self.users = Users(self._connection)
        self.sessions = Sessions(self._connection, session)
        self.tokens = Tokens(self._connection)
        self.access = Access(self._connection)
        self.usage = Usage(self._connection)
        self.audit = Audit(self._connection)
        self.admin = Admin(self._connection)
        self.stores = Stores(self._connection)
        self.root_key = RootKey(self._connection)

    def headers(self) -> dict[str, str]:
        """The credential as HTTP headers, good for this moment: for calls over REST by other libraries."""
        return self._connection.headers()

    def close(self) -> None:
        """Ends the connection, not the session."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
