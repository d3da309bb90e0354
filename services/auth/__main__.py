"""`python -m services.auth` runs the auth service."""

from services.auth.bootstrap import build
from services.auth.settings import AuthSettings
from services.shared.service import run


def main() -> None:
    run(build, AuthSettings(), "auth")


if __name__ == "__main__":
    main()
