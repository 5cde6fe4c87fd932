"""`python -m sw`: the command line without its console script."""

from sw.cli import main

main()
