"""Rows of an array of tokens as a dataset of litData, in the interpreter that has it: part of ``stream.py``, which see.

python benchmarks/write_litdata.py TOKENS.npy FOLDER CHUNK_BYTES [COMPRESSION]
"""

import os
import sys

import numpy as np


def main() -> None:
    from litdata.streaming.writer import BinaryWriter

    path, folder, chunk_bytes, compression = sys.argv[1], sys.argv[2], int(sys.argv[3]), (sys.argv[4:] or [None])[0]
    os.makedirs(folder)
    writer = BinaryWriter(folder, chunk_bytes=chunk_bytes, compression=compression)
    for number, row in enumerate(np.load(path, mmap_mode='r')):
        writer[number] = {'number': number, 'tokens': np.array(row)}
    writer.done()
    writer.merge()


if __name__ == '__main__':
    main()
