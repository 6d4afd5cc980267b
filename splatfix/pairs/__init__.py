"""Training pairs of a flawed render and a clean view: make them, store them in shards, and read them."""

from splatfix.pairs.pair import Pair, build_pair
from splatfix.pairs.shards import Shard, read_manifest, read_pairs, write_shards
from splatfix.pairs.stream import sample_pairs

__all__ = ["Pair", "Shard", "build_pair", "read_manifest", "read_pairs", "sample_pairs", "write_shards"]
