"""Training pairs: flawed renders beside clean photos, from the fit to shards and back."""

from splatfix.pairs.pair import Pair, pair_from
from splatfix.pairs.shards import Shard, merge_manifests, read_manifest, read_pairs, verify_shards, write_shards
from splatfix.pairs.stream import sample_pairs

__all__ = [
    "Pair",
    "Shard",
    "merge_manifests",
    "pair_from",
    "read_manifest",
    "read_pairs",
    "sample_pairs",
    "verify_shards",
    "write_shards",
]
