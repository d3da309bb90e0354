"""The secrets service: secrets with versions, and the key service that wraps everybody's keys.

root_keys         the one key that is not wrapped by another, and where it may be
root_generations  the keys it wraps, and root_move: to another root key
envelope          wrapping and unwrapping, pure
keyring           key-encryption keys, and the keys wrapped under them
vault             secrets and their versions
*_servicer        gRPC to those and back
"""
