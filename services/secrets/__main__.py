"""`python -m services.secrets` runs the secrets service."""

from services.secrets.bootstrap import build
from services.secrets.settings import SecretsSettings
from services.shared.service import run


def main() -> None:
    run(build, SecretsSettings(), "secrets")


if __name__ == "__main__":
    main()
