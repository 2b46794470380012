"""Typed options: plain values are coerced and checked once, and a wrong one is reported in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from inspect import signature
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call
from pydantic.dataclasses import dataclass

from fastmtl.errors import UserError

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    return value


_NUMBER = BeforeValidator(_number)
Count = Annotated[int, _NUMBER, Field(ge=1)]  # 1, 2, 3, …
Several = Annotated[int, _NUMBER, Field(ge=2)]  # 2, 3, 4, …
Natural = Annotated[int, _NUMBER, Field(ge=0)]  # 0, 1, 2, …
Share = Annotated[float, _NUMBER, Field(gt=0, lt=1)]  # A share that is neither nothing nor all.
Portion = Annotated[float, _NUMBER, Field(gt=0, le=1)]  # A share that may be all.
Rate = Annotated[float, _NUMBER, Field(ge=0, lt=1)]  # A share that may be nothing.
Fraction = Annotated[float, _NUMBER, Field(ge=0, le=1)]  # A share that may be nothing or all.
Positive = Annotated[float, _NUMBER, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, _NUMBER, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, _NUMBER, Field(allow_inf_nan=False)]


class OptionError(UserError):
    """A value that does not fit its option; `field` is the option's name within its class."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}{problem}")
        self.field, self.problem = field, problem

    def under(self, prefix: str) -> UserError:
        """The same error with the whole key of the configuration."""
        return UserError(f"{prefix}.{self.field}{self.problem}")


@dataclass_transform(frozen_default=True)
def options(cls: T) -> T:
    """Make a frozen dataclass whose fields are coerced and checked when an instance is made.

    Raises:
        OptionError: On construction, for the first value that does not fit its annotation.
    """
    made: Any = dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"))(cls)
    made.__init__ = _in_one_line(made, made.__init__)
    return made


def _in_one_line(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise _explained(cls, error) from None

    return checked


def _explained(cls: type, error: ValidationError) -> UserError:
    def words(name: str) -> str:
        hint = cls.__pydantic_fields__[name]  # type: ignore[attr-defined]
        return hint.description or describe(Annotated[(hint.annotation, *hint.metadata, None)])

    return _first_problem([field.name for field in fields(cls)], words, error)


def checked(function: F) -> F:
    """Make a function whose arguments are coerced and checked by their annotations, as the fields of options are.

    Raises:
        OptionError: On a call, for the first argument that does not fit.
    """
    called = validate_call(function)

    @wraps(function)
    def with_checked_arguments(*args: Any, **kwargs: Any) -> Any:
        try:
            return called(*args, **kwargs)
        except ValidationError as error:
            hints = get_type_hints(function, include_extras=True)
            known = list(signature(function).parameters)
            raise _first_problem(known, lambda name: describe(hints[name]), error) from None

    return with_checked_arguments  # type: ignore[return-value]


def _first_problem(known: list[str], words: Callable[[str], str], error: ValidationError) -> UserError:
    """Of options `known` by name, each of which `words` says the type of."""
    first = error.errors()[0]
    if isinstance(cause := first.get("ctx", {}).get("error"), UserError):  # of a class's own check
        return cause
    name, *inside = first["loc"]
    if isinstance(name, int) and name < len(known):  # an argument without a name
        name = known[name]
    if name not in known or (not inside and "missing" in first["type"]):
        wrong = "missing" if "missing" in first["type"] else "unknown"
        return OptionError(str(name), f" is {wrong}; the options are {', '.join(known)}")
    if "missing" in first["type"]:  # of a list's items
        inside = inside[:-1]
    place = name + "".join(f"[{part}]" for part in inside if isinstance(part, int))
    return OptionError(place, f"={first['input']!r} does not fit; use {words(name)}")


def describe(hint: Any) -> str:
    """An annotation in words: "a whole number of 1 or more", "one of linear, constant"."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *marks = get_args(hint)
        if words := next((mark.description for mark in marks if getattr(mark, "description", None)), None):
            return words
        bounds = [mark for part in marks for mark in (getattr(part, "metadata", None) or [part])]
        return describe(inner) + _range(bounds)
    if origin is Literal:
        return "one of " + ", ".join("null" if value is None else str(value) for value in get_args(hint))
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        parts = [describe(part) for part in get_args(hint) if part is not type(None)]
        return " or ".join([*dict.fromkeys(parts), *(["null"] if type(None) in get_args(hint) else [])])
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        inner = [part for part in get_args(hint) if part is not Ellipsis]
        return f"a list [a,b], each {describe(inner[0])}" if inner else "a list [a,b]"
    if origin is dict or str(origin).endswith("Mapping'>"):
        return "a mapping {a: b}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(hint, f"an option of the type {getattr(hint, '__name__', hint)}")


def _range(marks: list[Any]) -> str:
    """In words, the narrowest of all that an annotation has gathered."""
    ge, gt = ([getattr(m, side) for m in marks if isinstance(m, kind)] for kind, side in ((Ge, "ge"), (Gt, "gt")))
    le, lt = ([getattr(m, side) for m in marks if isinstance(m, kind)] for kind, side in ((Le, "le"), (Lt, "lt")))
    low = f" of {max(ge):g} or more" if ge else f" above {max(gt):g}" if gt else ""
    high = f"at most {min(le):g}" if le else f"below {min(lt):g}" if lt else ""
    return low + (f" and {high}" if low and high else f", {high}" if high else "")
