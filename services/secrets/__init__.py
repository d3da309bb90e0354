"""The secrets service: secrets with versions, and the key service that wraps everybody's keys.

root_keys         the one key that is not wrapped by another, and where it may be
root_generations  the keys it wraps, and root_move: to another root key
envelope          wrapping and unwrapping, pure
keyring           key-encryption keys, and the keys wrapped under them
vault             secrets and their versions
providers/        where secrets are beside it: what follows it, and what is used by name
rotation/         secrets that get a new value by themselves
*_servicer        gRPC to those and back
parts, bootstrap  all of it, wired
"""
