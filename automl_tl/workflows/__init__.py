"""One module per verb of the command line and the Python API."""
