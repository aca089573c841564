"""One canonical JSON form for everything that is hashed or stored, so that a hash means content."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping, Set
from json.encoder import encode_basestring_ascii
from pathlib import PurePath
from typing import Any

#: Hexadecimal characters kept of a sha256. 96 bits: no accidental collision among 10^12 entries.
HASH_LENGTH = 24

_LEAVES = frozenset({str, int, float, bool, type(None)})


def plain(obj: Any) -> Any:
    """Reduce ``obj`` to what JSON can hold; the result survives writing and reading unchanged.

    Parameters
    ----------
    obj : object
        Built-in types, NumPy scalars and arrays, dataclasses, pydantic models, enums, paths, sets.

    Returns
    -------
    object
        dict (string keys), list, str, int, float, bool or None. Tuples become lists, sets sorted
        lists, and numbers that are not finite become None.

    Raises
    ------
    TypeError
        For any other type: a hash of its ``repr`` could change from run to run.
    """
    kind = type(obj)
    if kind is float:
        return obj if math.isfinite(obj) else None
    if kind in _LEAVES:
        return obj
    if kind is list or kind is tuple:
        return _plain_list(obj)
    if isinstance(obj, Mapping):
        return _plain_dict(obj)
    return _plain_other(obj)


def canonical(obj: Any) -> str:
    """Return the canonical JSON text of ``obj``: sorted keys, floats by ``repr``, ASCII, no spaces."""
    return _dump(plain(obj))


def content_hash(obj: Any) -> str:
    """Hash the content of ``obj``.

    Equal for objects with equal canonical JSON: key order, tuple or list, NumPy or built-in numbers
    and a round trip through a JSON file make no difference. ``1`` and ``1.0`` differ; all numbers
    that are not finite hash as None, the value they are stored as.

    Returns
    -------
    str
        The first `HASH_LENGTH` hexadecimal characters of the sha256.
    """
    return text_hash(canonical(obj))


def text_hash(*texts: str | None) -> str:
    """Hash a sequence of texts; None differs from the empty text, and the split between texts counts."""
    if len(texts) == 1 and texts[0] is not None:
        data = texts[0].encode("utf-8", "surrogatepass")
    else:
        # The JSON of a list of texts, without the cost of a general encoder: ledgers hash tens of thousands of rows.
        data = ("[" + ",".join(map(_quoted, texts)) + "]").encode("ascii")
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def _quoted(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _dump(obj: Any) -> str:
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain_list(obj: list[Any] | tuple[Any, ...]) -> list[Any]:
    # Coordinates are most of what is stored: a list of finite floats is copied without a call per number.
    kinds = set(map(type, obj))
    if kinds <= _LEAVES and (
        float not in kinds or all(type(x) is not float or math.isfinite(x) for x in obj)
    ):
        return list(obj)
    return [plain(x) for x in obj]


def _plain_dict(obj: Mapping[Any, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in obj.items():
        name = key if type(key) is str else _key(key)
        if name in result:
            raise TypeError(f"two keys of a mapping are both written {name!r}")
        result[name] = plain(value)
    return result


def _key(key: Any) -> str:
    key = plain(key)
    if isinstance(key, str):
        return key
    if isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise TypeError(f"a {type(key).__name__} cannot be the key of a stored mapping")


def _plain_other(obj: Any) -> Any:
    if isinstance(obj, enum.Enum):
        return plain(obj.value)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if hasattr(obj, "model_dump"):
        return plain(obj.model_dump(mode="json"))
    if hasattr(obj, "tolist"):  # NumPy scalars and arrays, without importing NumPy here
        return plain(obj.tolist())
    if isinstance(obj, PurePath):
        return str(obj)
    if isinstance(obj, (Set, frozenset)):
        return sorted((plain(x) for x in obj), key=_dump)
    for base in (bool, int, float, str):
        if isinstance(obj, base):
            return plain(base(obj))
    if isinstance(obj, (list, tuple)):
        return [plain(x) for x in obj]
    raise TypeError(f"a {type(obj).__name__} can be neither stored nor hashed: {obj!r:.80}")
