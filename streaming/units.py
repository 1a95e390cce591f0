"""Numbers as people write them: `"64mb"` -> 67108864, `"10m"` -> 10000000, and back for messages.

Bytes are binary (`kb` is 1024, as in mosaicml-streaming); counts are decimal.
"""

import re

from streaming.errors import ArgumentError

__all__ = ['bytes_to_int', 'human_bytes', 'number_abbrev_to_int']

_BYTE_UNITS = {'b': 1, 'kb': 1 << 10, 'mb': 1 << 20, 'gb': 1 << 30, 'tb': 1 << 40, 'pb': 1 << 50, 'eb': 1 << 60}
_COUNT_UNITS = {'': 1, 'k': 10**3, 'm': 10**6, 'b': 10**9, 't': 10**12}
_NUMBER = re.compile(r'\s*(\d+(?:_\d+)*(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*', re.IGNORECASE)


def _parse(value: int | str, units: dict[str, int], what: str, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ArgumentError(f'{what} must be an int or a string such as {example!r}, got {value!r}')
    if isinstance(value, int):
        number, factor = float(value), 1
        exact: int | None = value
    else:
        match = _NUMBER.fullmatch(value)
        unit = match.group(2).lower() if match else ''
        if match is None or (unit and unit not in units):
            raise ArgumentError(f'{what} must look like {example!r} (units: {", ".join(u for u in units if u)}), got {value!r}')
        text = match.group(1)
        factor = units[unit] if unit else 1
        number = float(text)
        exact = None if '.' in text else int(text) * factor
    result = exact if exact is not None else int(number * factor)
    if result < 0:
        raise ArgumentError(f'{what} must not be negative, got {value!r}')
    return result


def bytes_to_int(value: int | str) -> int:
    """Turn a number of bytes such as ``67108864``, ``"64mb"`` or ``"1.5 GB"`` into an int.

    Units are binary (1 kb = 1024 bytes) and case does not matter. A string without a unit is bytes.

    Raises:
        ArgumentError: the value is negative or not of this form.
    """
    return _parse(value, _BYTE_UNITS, 'a number of bytes', '64mb')


def number_abbrev_to_int(value: int | str) -> int:
    """Turn a count such as ``10000``, ``"10k"``, ``"64M"`` or ``"1.5b"`` into an int (units are decimal).

    Raises:
        ArgumentError: the value is negative or not of this form.
    """
    return _parse(value, _COUNT_UNITS, 'a count', '10k')


def human_bytes(size: int) -> str:
    """Write a number of bytes for people: ``1536`` -> ``"1.5 KiB"``."""
    value = float(size)
    for unit in ('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'):
        if abs(value) < 1024 or unit == 'PiB':
            return f'{size} B' if unit == 'B' else f'{value:.1f} {unit}'
        value /= 1024
    raise AssertionError('unreachable')
