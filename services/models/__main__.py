"""`python -m services.models` runs the models service."""

import gc


def main() -> None:
    # Nothing that is imported is garbage: looking for some is a tenth of a start's time. `run` begins with it again.
    gc.disable()
    from services.models.bootstrap import build
    from services.models.settings import ModelsSettings
    from services.shared.service import run

    run(build, ModelsSettings(), "models")


if __name__ == "__main__":
    main()
