"""`python -m flows.cli`: the same as `retune`."""

from flows.cli import main

main()
