"""The command line: words to calls, one file a group of commands."""
