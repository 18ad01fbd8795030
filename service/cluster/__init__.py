"""Where gangs run: the interface to a cluster, and its adapter to Ray."""
