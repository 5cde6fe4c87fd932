"""`python -m tilewright`: the command line without its console script."""

from tilewright.sw.cli import main

main()
