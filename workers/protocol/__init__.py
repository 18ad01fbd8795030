"""What service and workers say to each other, and the layout of shared storage."""
