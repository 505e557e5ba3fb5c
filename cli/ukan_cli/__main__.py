"""`python -m ukan_cli`, and what launchers of several processes start."""

from ukan_cli.main import main

main()
