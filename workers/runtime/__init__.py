"""What watches over a worker process, and what it prints."""
