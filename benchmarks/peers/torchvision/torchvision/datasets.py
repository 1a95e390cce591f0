"""What `streaming.vision` derives from."""

__all__ = ['VisionDataset']


class VisionDataset:
    """Named by the base classes of mosaicml-streaming's image datasets, and never made."""
