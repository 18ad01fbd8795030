"""The routes, one file per resource. They translate; they decide nothing."""
