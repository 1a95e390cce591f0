"""Converting what people have, on all cores: Parquet of text, JPEGs in folders, zstd files of JSON lines.

Each package in its own way: ours by `convert`, mosaicml-streaming by a loop over an MDSWriter and by its recipe for many
processes (a writer each, then merge_index), litData by `optimize`, webdataset by a ShardWriter. The peers read with pyarrow, json
and zstandard, and nobody compresses. Of size full the input is 2 GB of Parquet, 100,000 JPEGs and 1 GB of compressed JSON lines.
One round of that takes 35 minutes on two cores, most of them webdataset's, and ten more to make the input, which --inputs keeps
for other runs (4.7 GB); the folder needs room for 6 GB.
"""

import os

from harness import Bench, call

_CONTENDERS = {
    'ours': 'contenders.convert_ours:convert',
    'mosaicml': 'contenders.convert_mosaicml:convert',
    'mosaicml processes': 'contenders.convert_mosaicml:convert_in_processes',
    'litdata': 'contenders.convert_litdata:convert',
    'webdataset': 'contenders.convert_webdataset:convert',
}
# By workload, how large the input is: megabytes of Parquet or of compressed lines, or images.
_SIZES = {'parquet': (4, 128, 2048), 'jpeg': (200, 8000, 100_000), 'jsonl.zst': (4, 64, 1024)}


def main() -> None:
    with Bench('convert', __doc__, workloads=tuple(_SIZES)) as bench:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        for workload in bench.workloads:
            size = bench.by_size(*_SIZES[workload])
            source = (bench.inputs or bench.folder) / f'{workload}-{size}'
            made = bench.prepare('ours', call('contenders.convert_input:make', folder=source, workload=workload, size=size), 3600)
            # One folder for all: each empties it before it begins, and only one output lies on the disk.
            out = bench.folder / 'out'
            arguments = {'workload': workload, 'source': source, 'out': out, 'records': made['value'], 'workers': workers}
            bench.compare(
                'convert/records',
                f'{workload}, {made["megabytes"]} MB',
                'records/s',
                {contender: call(function, **arguments) for contender, function in _CONTENDERS.items()},
                limit_s=3600,
            )
            bench.remove(out, *([] if bench.inputs else [source]))


if __name__ == '__main__':
    main()
