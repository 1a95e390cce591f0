"""Who sees which sample, when: arithmetic on a few integers, without I/O, torch or a clock.

`plan` is what the rest of the library uses. A plan deals places of an epoch to ranks (`partition`, `batching`), turns
places into units of shards (`shuffle`, `windowed`, with random numbers from `keyed`) and units into samples
(`sampling`).
"""
