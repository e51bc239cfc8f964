"""The device's certificate and private key: from files, from the environment, or sealed in the bucket."""
