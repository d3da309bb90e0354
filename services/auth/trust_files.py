"""The files that say which identities from outside are trusted, and what they may do: YAML, checked as a whole.

A file that is wrong keeps the service from starting: half of a rule must not open a door.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from services.auth import outbound
from services.auth.permission_sets import EVERYWHERE, PERMISSION_SETS
from services.auth.roles import ROLES
from services.shared.identity import Grant

# Asymmetric ones alone: a public key must never be what a token is made with (RFC 8725, section 3.1).
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_Text = Annotated[str, Field(min_length=1, max_length=512)]
# A role's or user's ARN with the account written out: where it is a wildcard, anybody can make a role of that name.
_ARN_PATTERN = r"^arn:aws(-[a-z]+)*:iam::\d{12}:(role|user|federated-user)/[A-Za-z0-9+=,.@_/*?-]+$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entitled(_Strict):
    """What whoever is meant may do: what a role or a permission set may."""

    role: str = ""
    permission_set: str = ""

    @model_validator(mode="after")
    def _one_that_exists(self) -> "Entitled":
        if bool(self.role) == bool(self.permission_set):
            raise ValueError("give either role or permission_set")
        known: dict[str, Any] = ROLES if self.role else PERMISSION_SETS
        if (self.role or self.permission_set) not in known:
            raise ValueError(f"there are: {', '.join(known)}")
        return self

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Everything they may do."""
        if self.role:
            return ROLES[self.role].grants
        return (Grant("allow", PERMISSION_SETS[self.permission_set].permissions, (EVERYWHERE,)),)


class ClaimRule(Entitled):
    """Holds for tokens in which a claim, or one of the texts in it, equals `value` or has the shape of `pattern`.

    `claim` is a name, or a path with dots such as `realm_access.roles`. In patterns `*` stands for anything.
    """

    claim: _Text
    value: _Text | None = None
    pattern: _Text | None = None

    @model_validator(mode="after")
    def _value_or_pattern(self) -> "ClaimRule":
        if (self.value is None) == (self.pattern is None):
            raise ValueError("give either value or pattern")
        return self


class TrustedIssuer(_Strict):
    """An OpenID provider whose tokens are accepted. The first rule that holds decides."""

    issuer: _Text
    audience: _Text
    jwks_uri: _Text | None = None
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256", "ES256"]
    principal_claim: _Text = "sub"
    rules: Annotated[list[ClaimRule], Field(min_length=1)]

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else outbound.check_url(value)

    @property
    def name(self) -> str:
        """The issuer in names of principals: host, and path where it has one, so that two realms differ."""
        return self.issuer.partition("://")[2].rstrip("/")


class AwsRule(Entitled):
    """Holds for AWS identities whose ARN has the shape of the pattern, `*` within its name standing for anything."""

    arn: Annotated[str, Field(pattern=_ARN_PATTERN, max_length=2048)]


def load_issuers(file: Path, own_issuer: str) -> list[TrustedIssuer]:
    """The trusted issuers of a file. Raises ValueError, with what is wrong."""
    issuers = _load(file, TypeAdapter(list[TrustedIssuer]))
    names = [issuer.name for issuer in issuers]
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: an issuer is there twice")
    if any(issuer.issuer.rstrip("/") == own_issuer.rstrip("/") for issuer in issuers):
        raise ValueError(f"{file}: tokens of this installation are not accepted as another's")
    for one in names:
        # `oidc:host:…` and `oidc:host:8443:…` could name the same principal.
        if any(other.startswith(f"{one}:") for other in names):
            raise ValueError(f"{file}: {one} can't be trusted on two ports")
    return issuers


def load_aws_rules(file: Path) -> list[AwsRule]:
    """The AWS identities of a file. Raises ValueError, with what is wrong."""
    return _load(file, TypeAdapter(list[AwsRule]))


_T = TypeVar("_T")


def _load(file: Path, shape: TypeAdapter[_T]) -> _T:
    try:
        return shape.validate_python(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        # Without the values: somebody may have put a secret there.
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ValueError(f"{file}: {wrong}") from None
    except yaml.YAMLError:
        raise ValueError(f"{file} is not YAML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} can't be read ({type(error).__name__})") from None
