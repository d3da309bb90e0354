"""`python -m services.secrets` runs the secrets service."""

from services.secrets.bootstrap import build
from services.secrets.root_keys.root_key import RootKeyError
from services.secrets.settings import SecretsSettings
from services.shared.configuration import ConfigurationError
from services.shared.service import run


def main() -> None:
    try:
        run(build, SecretsSettings(), "secrets")
    except (RootKeyError, ConfigurationError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
