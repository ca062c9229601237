"""`python -m vireo.cli`: the same as the command `vireo`."""

from vireo.cli import main

main()
