"""What a person sees: the terminal's live view, curves, films.

Imports metric names and checks only.
"""
