"""`python -m services.models` runs the models service."""

from services.models.bootstrap import build
from services.models.settings import ModelsSettings
from services.shared.service import run


def main() -> None:
    run(build, ModelsSettings(), "models")


if __name__ == "__main__":
    main()
