"""What at least two services use: server, interceptors, identity, errors, database, settings."""
