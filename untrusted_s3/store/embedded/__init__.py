"""The embedded S3 server, SeaweedFS, as a child process."""
