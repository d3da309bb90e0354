"""`random`: fields get random values; nothing else is told of them."""

from typing import Annotated

from pydantic import Field

from services.secrets.rotation.options import FieldName
from services.secrets.rotation.rotator import Data, Rotation, Rotator, Surroundings
from services.secrets.rotation.values import ValuePolicy


class RandomOptions(ValuePolicy):
    """`fields` get new values; the others stay."""

    fields: Annotated[tuple[FieldName, ...], Field(min_length=1, max_length=32)] = ("password",)


class RandomValue(Rotator):
    """For what nobody else has to be told: signing keys, peppers, passwords that all users read from here."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._randomness = surroundings.randomness

    def check(self, options: Data) -> frozenset[str]:
        RandomOptions.of(options)
        return frozenset()

    def propose(self, rotation: Rotation) -> Data:
        options = RandomOptions.of(rotation.options)
        return {**rotation.current, **{name: options.value(self._randomness) for name in options.fields}}
