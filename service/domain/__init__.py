"""What an experiment is and may become: pure, without I/O."""
