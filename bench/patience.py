"""How long the bench and the tests wait for what must happen."""

# Seconds after which what is waited for counts as never happening. It bounds failures only: nothing that is well takes
# so long, however busy the machine is, and no passing test waits it out.
PATIENCE = 600.0
