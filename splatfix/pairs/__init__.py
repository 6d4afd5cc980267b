"""Training pairs: flawed renders beside clean views, from the fit to shards and back."""

from splatfix.pairs.pair import Pair, build_pair
from splatfix.pairs.shards import Shard, read_manifest, read_pairs, write_shards
from splatfix.pairs.stream import sample_pairs

__all__ = ["Pair", "Shard", "build_pair", "read_manifest", "read_pairs", "sample_pairs", "write_shards"]
