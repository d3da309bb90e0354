"""The models service: managers, models, versions and their weights."""
