"""`python -m services.secrets` runs the secrets service."""

import gc


def main() -> None:
    # Nothing that is imported is garbage: looking for some is a tenth of a start's time. `run` begins with it again.
    gc.disable()
    from services.secrets.bootstrap import build
    from services.secrets.root_keys.root_key import RootKeyError
    from services.secrets.settings import SecretsSettings
    from services.shared.configuration import ConfigurationError
    from services.shared.service import run

    try:
        run(build, SecretsSettings(), "secrets")
    except (RootKeyError, ConfigurationError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
