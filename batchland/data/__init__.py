"""Labelled photos as folders: fetch them, divide them, look them over. Knows neither torch nor models."""
