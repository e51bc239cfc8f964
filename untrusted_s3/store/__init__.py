"""S3: where things lie in the bucket, and how bytes get there and back."""
