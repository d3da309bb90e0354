"""The client for programs that run an event loop: `strongroom.client` with `await`.

    from strongroom import AsyncClient

    async with AsyncClient("http://127.0.0.1:8080", api_key=key) as client:
        await client.models.push("scorer", "weights.safetensors", version="v1")
        async for model in client.models.list():
            ...
        password = (await client.secrets.get("prod/db")).data["password"]

Calls use grpc.aio. What waits for disks and hashes, such as a push, runs in a thread, which ends when its task is
cancelled.
"""
# Made from strongroom/client/__init__.py by `make clients`. Change it there.

from pathlib import Path
from types import TracebackType

from strongroom.aio.access import Access
from strongroom.aio.admin import Admin
from strongroom.aio.aliases import Aliases
from strongroom.aio.artifacts import Artifacts
from strongroom.aio.audit import Audit
from strongroom.aio.catalog import Catalog
from strongroom.aio.configs import Configs
from strongroom.aio.connection import AsyncConnection
from strongroom.aio.jobs import Jobs
from strongroom.aio.keys import Keys
from strongroom.aio.managers import Managers
from strongroom.aio.ml import Ml
from strongroom.aio.models import Models
from strongroom.aio.providers import Providers
from strongroom.aio.root_key import RootKey
from strongroom.aio.rotation import Rotation
from strongroom.aio.secret_rotation import SecretRotation
from strongroom.aio.secrets import Secrets
from strongroom.aio.sessions import Sessions
from strongroom.aio.stores import Stores
from strongroom.aio.tokens import Tokens
from strongroom.aio.usage import Usage
from strongroom.aio.users import Users
from strongroom.connection import DEFAULT_URL
from strongroom.session import TokenStore


class AsyncClient:
    """A Strongroom, seen by one caller. Tasks share it; close it, or use it as a context manager.

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
        self._connection = AsyncConnection(url, api_key=api_key, token=token, direct=direct, ca_file=ca_file)
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

    async def headers(self) -> dict[str, str]:
        """The credential as HTTP headers, good for this moment: for calls over REST by other libraries."""
        return await self._connection.headers()

    async def close(self) -> None:
        """Ends the connection, not the session."""
        await self._connection.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
