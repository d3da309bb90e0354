"""Why Strongroom did not start."""


class StartError(Exception):
    """A sentence for the user: what is wrong and what to do."""
