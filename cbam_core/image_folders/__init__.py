"""Folders of images: which files count, and what a folder of classes holds. Torch-free: the server counts with it."""
