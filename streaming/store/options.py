"""What every backend asks of its options: known names, sensible values, the URL's own query first."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from streaming.errors import ArgumentError

__all__ = [
    'check_timeout',
    'flag',
    'query_options',
    'refuse_secret',
    'refuse_unknown',
    'without_secrets',
]


def refuse_unknown(url: str, options: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse options that a backend does not have.

    Raises:
        ArgumentError: there is one; the message lists the known ones.
    """
    known = sorted(known)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ArgumentError(f'{without_secrets(url)} takes no option {", ".join(unknown)}; there are {", ".join(known)}')


def refuse_secret(url: str, known: Iterable[str]) -> None:
    """Refuse options that have no place in a URL, which people log and share.

    Raises:
        ArgumentError: there is one; its value is not shown.
    """
    known = sorted(known)
    unknown = sorted(set(query_options(url, {})[1]) - set(known))
    if unknown:
        raise ArgumentError(f'{without_secrets(url)}: the URL may give {", ".join(known)}, not {", ".join(unknown)}')


def check_timeout(value: object) -> float:
    """Return ``timeout_s`` as a float.

    Raises:
        ArgumentError: it is not a positive number.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float('inf'):
        raise ArgumentError(f'timeout_s must be a positive number of seconds, got {value!r}')
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return a switch given as a bool or as the text of a URL or an environment variable.

    Raises:
        ArgumentError: it is neither yes nor no.
    """
    text = str(value).lower()
    if text in ('1', 'true', 'yes', 'on'):
        return True
    if text in ('0', 'false', 'no', 'off', '', 'none'):
        return False
    raise ArgumentError(f'{name} must be true or false, got {value!r}')


def query_options(url: str, options: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Split off a URL's query; its values go before those of ``options``.

    Raises:
        ArgumentError: the query gives an option twice, or has a fragment.
    """
    parts = urlsplit(url)
    if parts.fragment:
        raise ArgumentError(f'{without_secrets(url)}: a "#" in a URL must be written %23')
    given: dict[str, object] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in given:
            raise ArgumentError(f'{without_secrets(url)} gives {name} twice')
        given[name] = value
    return parts._replace(query='').geturl(), {**options, **given}


def without_secrets(url: str) -> str:
    """The URL without its query and without a password: fit for messages."""
    plain = url.partition('?')[0]
    scheme, mark, rest = plain.partition('://')
    host, slash, path = rest.partition('/')
    user, at, place = host.rpartition('@')
    if at and ':' in user:
        host = f'{user.partition(":")[0]}:***@{place}'
    return f'{scheme}{mark}{host}{slash}{path}'
