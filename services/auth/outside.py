"""Identities from outside, put together from the settings."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.auth import aws_requests, trust_files
from services.auth.admission import Authenticator
from services.auth.aws_sign_in import KIND as AWS
from services.auth.aws_sign_in import AwsSignIn
from services.auth.credentials import CredentialSource
from services.auth.issuer import TokenIssuer
from services.auth.oidc_authenticator import KIND as OIDC
from services.auth.oidc_authenticator import OidcAuthenticator
from services.auth.outbound import Outbound
from services.auth.outside_credentials import OutsideCredentials
from services.auth.secret_references import resolve
from services.auth.settings import AuthSettings
from services.auth.shared_secret_authenticator import KIND as SHARED_SECRET
from services.auth.shared_secret_authenticator import SharedSecretAuthenticator, check_secret
from services.shared.database import Database
from services.shared.tokens import ISSUER


@dataclass(frozen=True)
class Outside:
    """What the settings say about them, read and checked."""

    settings: AuthSettings
    clock: Callable[[], datetime]
    web: Outbound
    authenticators: list[Authenticator]
    aws_rules: list[trust_files.AwsRule]
    sts: dict[str, aws_requests.Endpoint]

    @property
    def sources(self) -> dict[str, CredentialSource]:
        """Of their credentials, by kind."""
        return dict.fromkeys((OIDC, SHARED_SECRET, AWS), OutsideCredentials(self.clock))

    def aws(self, database: Database, issuer: TokenIssuer) -> AwsSignIn:
        """Sign-in with AWS identities."""
        server = self.settings.aws_server_id or self.settings.issuer
        return AwsSignIn(self.aws_rules, self.sts, server, database, issuer, self.web, self.clock)


def outside(settings: AuthSettings, clock: Callable[[], datetime]) -> Outside:
    """Reads the files and secrets. Raises ValueError, without secrets, for what can't be used."""
    web = Outbound()
    authenticators: list[Authenticator] = []
    if settings.oidc_issuers:
        issuers = trust_files.load_issuers(settings.oidc_issuers, settings.issuer)
        authenticators.append(OidcAuthenticator(issuers, web, clock))
    if secret := resolve(settings.jwt_secret.get_secret_value()):
        known = frozenset({settings.issuer, ISSUER})
        authenticators.append(SharedSecretAuthenticator(check_secret(secret), known, clock))
    rules = trust_files.load_aws_rules(settings.aws_roles) if settings.aws_roles else []
    sts = aws_requests.endpoints(settings.aws_regions, settings.aws_sts_endpoint)
    return Outside(settings, clock, web, authenticators, rules, sts)
