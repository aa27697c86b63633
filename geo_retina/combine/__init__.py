"""Runs over neighbouring or overlapping scenes, made into one set of objects."""

from geo_retina.combine.runs import CombineReport, combine_runs

__all__ = ["CombineReport", "combine_runs"]
