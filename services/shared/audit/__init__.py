"""The audit log of a service: what is recorded, how it is chained, written, signed, listed and verified."""
