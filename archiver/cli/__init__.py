"""The command line: one module a command, and the composition root that builds the objects and passes them on."""
