"""A stand-in. ``import streaming`` of mosaicml-streaming needs torchvision for its datasets of images, none of which is measured,
and torchvision's wheel on the package index does not load beside a torch that was built for CPUs only."""
