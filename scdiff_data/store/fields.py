"""What JSON of ours says becomes dataclasses: type and range of every field are looked at.

A checksum tells that a file was damaged. It does not tell that somebody wrote into it what cannot
be, with a checksum that is right.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints


def read_fields(kind: Any, content: Any, place: str = "") -> dict[str, Any]:
    """The arguments of a dataclass, from a JSON object; what is not among its fields is ignored.

    Parameters
    ----------
    kind
        The dataclass: of texts, whole numbers from 0 on in 63 bits, mappings and tuples of these,
        and others of its like.
    content
        What should be an object, as JSON was read.
    place
        Where it stands, for the errors.

    Raises
    ------
    ValueError
        If a field is missing, or is not of its type: the text names it.
    """
    _check(isinstance(content, dict), place, content, "an object")
    known, start = _list_fields(kind), f"{place}." if place else ""
    for name, (_, is_needed) in known.items():
        if is_needed and name not in content:
            raise ValueError(f"{start}{name} is missing")
    return {
        name: read_value(wanted, content[name], f"{start}{name}")
        for name, (wanted, _) in known.items()
        if name in content
    }


def read_value(kind: Any, value: Any, place: str) -> Any:
    """A value of a field's type, from JSON; takes and raises what `read_fields` does."""
    if type(value) is kind and kind in (str, int):
        _check(kind is str or 0 <= value < 2**63, place, value, "a number from 0 to 2^63 - 1")
        return value
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if NoneType in inside:
        return None if value is None else read_value(inside[0], value, place)
    if origin is tuple:
        _check(isinstance(value, list), place, value, "a list")
        return tuple(read_value(inside[0], one, f"{place}[{n}]") for n, one in enumerate(value))
    if origin is Mapping:
        _check(isinstance(value, dict), place, value, "an object")
        return {name: read_value(inside[1], one, f"{place}.{name}") for name, one in value.items()}
    names = {str: "a text", int: "a whole number"}
    _check(kind not in names, place, value, names.get(kind, ""))
    return kind(**read_fields(kind, value, place))


@cache
def _list_fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Of each field of a dataclass, its type, and whether it must be there."""
    types = get_type_hints(kind)
    return {
        field.name: (types[field.name], field.default is field.default_factory is MISSING)
        for field in fields(kind)
    }


def _check(is_so: bool, place: str, value: Any, wanted: str) -> None:  # noqa: FBT001
    if not is_so:
        raise ValueError(f"{place or 'all of it'} is {value!r:.60}, not {wanted}")
