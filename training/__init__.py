"""Train the embedded model ``mini``: photographs in, a model folder out.

Run ``python -m training --help``. Nothing of the service imports this package.
"""
