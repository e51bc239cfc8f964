"""What a folder holds: the log in the bucket, its checkpoints, and the local cache of both."""
