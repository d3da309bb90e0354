"""The pages that show the REST interface, and the OpenAPI document they are made of.

`assets` has what they load: scripts and styles of our own, and those that `vendored.json` pins.
"""
