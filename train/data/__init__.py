"""Data sets: images and archives of images, decoded once, and the toy distributions."""
