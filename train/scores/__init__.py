"""Figures of merit of generated samples."""
