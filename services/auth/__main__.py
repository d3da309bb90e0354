"""`python -m services.auth` runs the auth service."""

import gc


def main() -> None:
    # Nothing that is imported is garbage: looking for some is a tenth of a start's time. `run` begins with it again.
    gc.disable()
    from services.auth.bootstrap import build
    from services.auth.settings import AuthSettings
    from services.shared.service import run

    run(build, AuthSettings(), "auth")


if __name__ == "__main__":
    main()
