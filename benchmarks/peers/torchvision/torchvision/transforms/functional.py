"""What `streaming.vision` imports."""

from typing import Any, NoReturn

__all__ = ['to_tensor']


def to_tensor(image: Any) -> NoReturn:
    """Never called: no image is measured."""
    raise NotImplementedError('this torchvision is a stand-in; install the real one to read images')
