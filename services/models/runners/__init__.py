"""The processes that jobs are, and the runners in them. Nothing here may import a service: a job's process starts with
as little as it can."""
