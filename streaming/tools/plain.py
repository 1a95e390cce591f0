"""Values of samples for people and for other programs: one line of text, or JSON."""

import json
import math
import sys
from typing import Any

import msgspec
import numpy as np

__all__ = ['brief', 'to_json']


def to_json(value: Any) -> bytes:
    """A value as JSON, on one line.

    Bytes are base64, arrays nested lists, numbers that JSON does not have (NaN, infinities) null, decimals strings. An image is
    described by its mode and size, and what else JSON does not know is written as Python would print it.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except (OverflowError, UnicodeEncodeError):  # an int of more than 64 bits, half a surrogate pair
        return json.dumps(_strict(msgspec.to_builtins(value, enc_hook=_plain))).encode()


def brief(value: Any, limit: int = 72) -> str:
    """A value in at most ``limit`` letters or so."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        start = bytes(value[:12]).hex(' ')
        return f'{len(value)} bytes: {start}{" ..." if len(value) > 12 else ""}'
    if isinstance(value, np.ndarray):
        values = ', '.join(map(str, value.ravel()[:6].tolist()))
        return _cut(f'{value.dtype}{list(value.shape)} {values}{", ..." if value.size > 6 else ""}', limit)
    if _is_image(value):
        return f'image {value.mode} {value.size[0]}x{value.size[1]}'
    if isinstance(value, str):
        # Of a long text, only as much as will be seen.
        return _cut(repr(value[: limit + 1]), limit)
    return _cut(to_json(value).decode(), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f'{text[: limit - 4]} ...'


def _plain(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if _is_image(value):
        return {'image': value.format, 'mode': value.mode, 'size': list(value.size)}
    return repr(value)


def _is_image(value: Any) -> bool:
    # Whoever has an image has loaded the package.
    pillow = sys.modules.get('PIL.Image')
    return pillow is not None and isinstance(value, pillow.Image)


def _strict(value: Any) -> Any:
    """The same without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
