"""Models checked by pydantic, whose complaints read like a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Times = Annotated[int, Field(ge=1)]
Offset = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
HeaderText = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Goes into a header verbatim, so it holds no control characters."""
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
ErrorStatus = Annotated[int, Field(ge=400, le=599)]
AnyStatus = Annotated[int, Field(ge=200, le=599)]

ModelT = TypeVar("ModelT", bound=BaseModel)


class Checked(BaseModel):
    """Base of the simulator's models: no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def parse(model: type[ModelT], data: Mapping[str, Any], what: str) -> ModelT:
    """`data` as `model`. Raises ValueError that names each wrong key by its path."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{what}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Such as "answers[2].for_seconds: Input should be a valid number"; several are joined by "; "."""
    return "; ".join(f"{_path(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_url=False))


def _path(location: tuple[int | str, ...]) -> str:
    # The tags that pydantic chose a union's member by are written <tag>: they are no part of the JSON.
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if not str(part).startswith("<")]
    return "".join(parts).removeprefix(".") or "the whole"
