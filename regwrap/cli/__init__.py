"""The commands: read arguments, call one function, show the result, choose the exit code. No decisions."""
