"""What is typed: arguments, help, signals, exit codes.

A command here reads its arguments, calls one function, shows the result and chooses the exit code. It decides nothing.
"""
