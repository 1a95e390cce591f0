"""The state of a run: small, scalar, the same on every rank, and readable by any world.

Its first five keys are those of mosaicml-streaming, whose states load too; ours adds what else fixes the order.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from streaming.errors import ArgumentError
from streaming.order.config import OrderConfig, Origin

__all__ = ['STATE_VERSION', 'make_state', 'parse_state']

STATE_VERSION = 1

# What fixes the order for the rest of a run: taken from the state, whatever the new program says.
_FIXED = ('num_canonical_nodes', 'shuffle_seed', 'initial_physical_nodes', 'shuffle_algo', 'shuffle_block_size')

# The order in which a state of mosaicml-streaming was most likely made: what it does where nothing is said.
_OLD_SHUFFLE = 'py1e'


def make_state(config: OrderConfig, origin: Origin, epoch: int, sample_in_epoch: int) -> dict[str, Any]:
    """Put down where a run is.

    Args:
        config: The settings, resolved.
        origin: The world that began the epoch.
        epoch: The epoch, 0-based.
        sample_in_epoch: Samples of it that were delivered to all ranks together, with padding.
    """
    return {
        'epoch': epoch,
        'sample_in_epoch': sample_in_epoch,
        **{name: getattr(config, name) for name in _FIXED},
        'weights': None if config.weights is None else [dict(weight) for weight in config.weights],
        'shuffle': config.shuffle,
        'batch_size': config.batch_size,
        'origin': origin.to_json(),
        'version': STATE_VERSION,
    }


def parse_state(obj: Mapping[str, Any], config: OrderConfig) -> tuple[int, int, dict[str, Any]]:
    """Read a state, ours or mosaicml-streaming's.

    Args:
        obj: The state.
        config: The settings of the program that goes on, not resolved. Where they were given and contradict the state
            there is a warning, and the state counts.

    Returns:
        Epoch, samples of it that were delivered, and the settings that the state fixes, by their name in `OrderConfig`.

    Raises:
        ArgumentError: it is no such state, or one of a later version.
    """
    if not isinstance(obj, Mapping) or not {'epoch', 'sample_in_epoch'} <= obj.keys():
        raise ArgumentError(f'a state is a mapping with epoch, sample_in_epoch and more, got {obj!r}')
    version = obj.get('version', STATE_VERSION)
    if not isinstance(version, int) or version > STATE_VERSION:
        raise ArgumentError(f'the state has version {version!r}, this library reads up to {STATE_VERSION}: upgrade it')
    epoch, sample = (_whole(obj, name) for name in ('epoch', 'sample_in_epoch'))
    fixed = {name: obj[name] for name in _FIXED if obj.get(name) is not None}
    for name in fixed.keys() - {'shuffle_algo'}:
        _whole(obj, name)
    if obj.get('weights') is not None:
        fixed['weights'] = obj['weights']
    if 'version' not in obj and config.shuffle and config.shuffle_algo is None:
        fixed['shuffle_algo'] = _OLD_SHUFFLE
        warnings.warn(
            f'this state of mosaicml-streaming does not say how it shuffled: going on with {_OLD_SHUFFLE!r}, its '
            'default; give shuffle_algo if it was another',
            stacklevel=2,
        )
    _warn_of_changes(fixed, config)
    if sample and bool(obj.get('shuffle', config.shuffle)) != config.shuffle:
        warnings.warn(
            f'the state was saved in mid-epoch with shuffle={obj["shuffle"]} and goes on with '
            f'shuffle={config.shuffle}: samples of this epoch will be repeated and left out',
            stacklevel=2,
        )
    if sample and obj.get('origin') is not None:
        fixed['origin'] = Origin(**{name: _whole(obj['origin'], name) for name in Origin.__slots__}).to_json()
    try:
        OrderConfig(**fixed)
    except (TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(f'this state cannot be: {error}') from error
    return epoch, sample, fixed


def _warn_of_changes(fixed: Mapping[str, Any], config: OrderConfig) -> None:
    given = {name: getattr(config, name) for name in fixed}
    changed = [
        f'{name}={given[name]!r} (state: {value!r})'
        for name, value in fixed.items()
        if name in _FIXED and given[name] not in (None, value) and not (name == 'shuffle_seed' and given[name] == 9176)
    ]
    if changed:
        warnings.warn(f'the state fixes the order of this run; not used: {", ".join(changed)}', stacklevel=3)


def _whole(obj: Mapping[str, Any], name: str) -> int:
    value = obj.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or (value < 0 and name != 'shuffle_seed'):
        raise ArgumentError(f'{name} of a state must be a whole number of at least 0, got {value!r}')
    return value
