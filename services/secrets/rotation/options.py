"""What a rotator is told about a secret, checked: an unknown option is an error, and values are not repeated in it."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from services.shared.errors import InvalidArgument

# Of another secret.
SecretName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
]
# Of a field of a secret.
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
# As a certificate has it, or an address.
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,252})$")]


class OptionsInvalid(InvalidArgument):
    reason = "ROTATION_OPTIONS_INVALID"


class Options(BaseModel):
    """Options of a rotator. They are no secrets: they are shown to who may list the secret."""

    # Whoever writes a password here by mistake shall not find it in an error.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Raises OptionsInvalid, which names the option."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "options"
            raise OptionsInvalid(f"Option {place}: {first['msg']}.", option=place) from None
