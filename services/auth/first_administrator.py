"""The first administrator, whom the environment names: `STRONGROOM_ADMIN_EMAIL`, and a password or a file with it."""

import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.auth import password_rules
from services.auth.password_rules import PasswordWeak
from services.auth.roles import ADMIN
from services.auth.users import EmailInvalid, UserExists, Users, check_email
from services.shared.identity import Principal

_CREATOR = Principal("environment", grants=ADMIN.grants)
_NAME = "Administrator"

_log = structlog.get_logger()


@dataclass(frozen=True)
class FirstAdministrator:
    """Whom to create."""

    email: str
    password: str = field(repr=False)


def read(email: str, password: str, file: Path | None) -> FirstAdministrator | None:
    """The administrator that the settings describe; None if they name none.

    Raises ValueError or PermissionError, without the password, if they can't be used: well-known examples are refused.
    """
    if not email:
        if password or file:
            raise ValueError("Set STRONGROOM_ADMIN_EMAIL too: whose password is it?")
        return None
    if bool(password) == bool(file):
        raise ValueError("Set STRONGROOM_ADMIN_PASSWORD or STRONGROOM_ADMIN_PASSWORD_FILE, one of the two.")
    if file:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionError(f"{file} may be read by others; run: chmod 600 {file}")
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    try:
        shown = check_email(email)
        password_rules.check(password, shown)
    except EmailInvalid as error:
        raise ValueError(f"STRONGROOM_ADMIN_EMAIL: {error.message}") from None
    except PasswordWeak as error:
        raise ValueError(f"STRONGROOM_ADMIN_PASSWORD: {error.message}") from None
    return FirstAdministrator(shown, password)


def ensure(users: Users, wanted: FirstAdministrator) -> None:
    """Creates the user if there is none with that e-mail address. One who is there stays as it is, password and all."""
    if users.exists(wanted.email):
        return
    # A replica that starts at the same moment may be first.
    with suppress(UserExists):
        user, _ = users.create(_CREATOR, wanted.email, _NAME, ADMIN.name, wanted.password)
        _log.info("auth.first_administrator_created", principal=f"user:{user.id}")
