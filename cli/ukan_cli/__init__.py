"""The command line: parses, prints, calls one function of `ukan` for each command."""
