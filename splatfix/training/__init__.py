"""Training of restorers: shards in, a checkpoint out; on one process or many."""
