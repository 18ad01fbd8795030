"""What is watched while it happens: a viewer costs no thread and no query of their own."""
