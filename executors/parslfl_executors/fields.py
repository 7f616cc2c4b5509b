"""What the fields of a configuration file are made of: counts, numbers and durations.

Numbers are strict, because YAML has already told numbers from text, and reads `yes` as true.

Does not know: YAML, or which configuration uses these.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter

#: A whole number from 1.
Count = Annotated[int, Field(strict=True, ge=1)]
#: A whole number from 0.
Whole = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True)]

_CLOCK = re.compile(r"(?:(?P<h>\d+):(?=[0-5]?\d:))?(?P<m>\d+):(?P<s>[0-5]?\d)")
_DAYS = re.compile(r"(?P<d>\d+)-(?P<h>\d\d?)(?::(?P<m>[0-5]?\d))?(?::(?P<s>[0-5]?\d))?")
_N = r"\d+(?:\.\d+)?"
_UNITS = re.compile(
    rf"(?:(?P<d>{_N})\s*d)?\s*(?:(?P<h>{_N})\s*h)?\s*(?:(?P<m>{_N})\s*m(?:in)?)?\s*(?:(?P<s>{_N})\s*s)?"
)
_PLAIN = re.compile(rf"(?P<s>{_N})")
_FORMS = (_PLAIN, _CLOCK, _DAYS, _UNITS)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


class FieldError(ValueError):
    """What a validator raises: a whole message, about the value `steps` below the one it checks."""

    def __init__(self, message: str, *steps: str | int) -> None:
        self.steps = steps
        super().__init__(message)


class Unusable(Exception):  # noqa: N818 - a sentence reads better without a suffix
    """A site cannot be used from here; the message says why, and the cure."""


class Settings(BaseModel):
    """A block of fields: immutable, and no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def seconds(value: object) -> object:
    """A duration's text in seconds; what is no text is returned as it is.

    `90`, `90s`, `5m`, `1h30m`, `2d`; `05:00` and `01:00:00` as clocks show it; `1-00:00:00` as
    Slurm does. An unquoted 1:00:00 never comes here as text: YAML reads it as 3600, the same.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    found = next(filter(None, (form.fullmatch(text) for form in _FORMS)), None)
    if not found or not text:
        raise FieldError(f"expected a duration such as 90s, 5m, 1h or 00:05:00, got {value!r}")
    return sum(_SECONDS[unit] * float(number) for unit, number in found.groupdict().items() if number)


def _keywords(value: object) -> object:
    plain = TypeAdapter(dict[str, JsonValue]).validate_python(value)
    if not isinstance(plain.get("provider", {}), dict):
        raise FieldError("expected the provider's keywords, such as {max_blocks: 1}", "provider")
    return plain


#: Keywords for Parsl; those of the provider under `provider`. Plain values, for a run keeps them.
Keywords = Annotated[dict[str, Any], BeforeValidator(_keywords)]

#: Seconds, more than 0.
Duration = Annotated[float, Field(strict=True, gt=0), BeforeValidator(seconds)]


def _devices(value: object) -> object:
    """Accelerators may be named by number: `[0, 1]`."""
    if isinstance(value, list):
        return [str(item) if type(item) is int else item for item in value]
    if type(value) is int and value >= 0:
        return value
    raise FieldError(f"expected a count or device names, got {value!r}")


#: Accelerators: how many, or their names.
Devices = Annotated[Whole | list[str], BeforeValidator(_devices)]
