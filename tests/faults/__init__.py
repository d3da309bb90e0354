"""Strongroom as it runs with several replicas of each service, on a machine where parts fail: `make faults`."""
