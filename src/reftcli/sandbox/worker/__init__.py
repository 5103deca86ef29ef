"""The far side of the sandbox: a process of its own, standard library only, started from its path.

Nothing here is imported by the rest of the project; `reftcli.sandbox.process` starts `main.main()` in a bare
interpreter. One worker forks one locked-down child per program.
"""
