"""`strongroom doctor`: looks at what commonly goes wrong, and says of each finding what to do.

findings   what is found
there      at an installation, as a caller sees it
here       in a data directory of this machine, also of one that does not run
"""
