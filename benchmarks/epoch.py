"""One epoch from a store by one library, in the interpreter that has it: part of ``stream.py``, which see.

Prints a line of JSON: seconds from before the dataset is constructed to the first batch and to the end of the epoch, and what
tells whether every sample came.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

BATCH = 256


def open_ours(args: argparse.Namespace) -> Any:
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(
        remote=f's3://data/{args.dataset}', local=args.local, batch_size=BATCH, shuffle=args.shuffle, num_canonical_nodes=1
    )
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=args.workers)


def open_mosaicml(args: argparse.Namespace) -> Any:
    return open_ours(args)  # the same names


def open_litdata(args: argparse.Namespace) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # It has no argument for a server without TLS.
    downloader._OBSTORE_CLIENT_OPTIONS['allow_http'] = 'true'
    endpoint = {'endpoint_url': os.environ['S3_ENDPOINT_URL']}
    dataset = StreamingDataset(f's3://data/{args.dataset}', cache_dir=args.local, shuffle=args.shuffle, storage_options=endpoint)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=args.workers)


OPENERS: dict[str, Callable[[argparse.Namespace], Any]] = {
    'ours': open_ours,
    'mosaicml': open_mosaicml,
    'litdata': open_litdata,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('reader', choices=OPENERS)
    parser.add_argument('dataset')
    parser.add_argument('local')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--shuffle', action='store_true')
    args = parser.parse_args()
    # What a training script has imported before it opens its data.
    import boto3  # noqa: F401
    import torch  # noqa: F401

    __import__('litdata' if args.reader == 'litdata' else 'streaming')
    first_s = 0.0
    samples = total = 0
    began = time.monotonic()
    for batch in OPENERS[args.reader](args):
        first_s = first_s or time.monotonic() - began
        samples += len(batch['number'])
        total += int(batch['number'].sum())
    epoch_s = time.monotonic() - began
    print(json.dumps({'first_s': first_s, 'epoch_s': epoch_s, 'samples': samples, 'sum': total}))


if __name__ == '__main__':
    main()
