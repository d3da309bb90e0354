"""Configs, jobs and what they make. What runs for a job runs in `runners`."""
