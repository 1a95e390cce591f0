"""The bytes: the index, the shards, the encodings of columns, the codecs and hashes. Nothing here knows where bytes lie."""
