"""The command line: parse, call, print, turn errors into exit codes. One module per group of commands."""
