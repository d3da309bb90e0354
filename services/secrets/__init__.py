"""The secrets service: secrets with versions, and the key service that wraps everybody's keys.

root_key       the one key that is not wrapped by another
envelope       wrapping and unwrapping, pure
keyring        key-encryption keys, and the keys wrapped under them
vault          secrets and their versions
rotation/      secrets that get a new value by themselves
*_servicer     gRPC to those and back
"""
