"""Files that appear whole, shards, the feature store, .npz."""
