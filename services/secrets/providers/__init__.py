"""Where secrets are kept besides the embedded vault: cloud managers and Vault/OpenBao, behind one protocol."""
