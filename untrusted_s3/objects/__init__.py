"""One file's object in the bucket: naming, trailer, writing, and what can be reused. Knows no peer."""
