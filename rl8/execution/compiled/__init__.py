"""Small work in C: what `rl8.execution.small` does, in one call an optimizer step, built where it is used.

`small.c` is the code, `building` makes a library of it with the system's compiler, `steps` calls that.
"""
