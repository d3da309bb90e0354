"""What ends a local command: one sentence for the user."""


class StartError(Exception):
    """A sentence for the user: what is wrong and what to do."""


class BackupError(Exception):
    """A sentence for the user: why a backup was not made or not restored, and what to do."""
