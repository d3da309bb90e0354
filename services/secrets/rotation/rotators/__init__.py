"""The rotators that come with Strongroom."""
