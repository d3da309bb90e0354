"""Strongroom on one machine: `strongroom up`.

    layout       the data directory: its folders, its lock, where sockets fit
    credentials  root key, service identities, the administrator's key
    contract     what the gateway routes, read from the descriptor set
    gateway      Envoy's configuration, and how it drains
    process      one part: a child process that dies with its parent
    state        what runs, for tooling and for a start after a crash
    supervisor   starts, watches, restarts and stops the parts
    console      what the user sees

Nothing here imports a service: parts are processes, and talk over gRPC.
"""
