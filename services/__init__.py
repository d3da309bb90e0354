"""The three services of Strongroom.

`auth`, `models` and `secrets` are independent: none imports another, they talk over gRPC with service identities.
`shared` holds what at least two of them use, and imports none of them. Inside a service the layers are

    __main__ → bootstrap → servicers → domain and storage

and only servicers know grpc and the generated stubs. `lint-imports` checks all of it.
"""
