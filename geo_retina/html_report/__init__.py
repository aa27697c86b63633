"""Evaluations for people: a page to read and layers to open in a GIS."""

from geo_retina.html_report.gis_layers import write_agreement
from geo_retina.html_report.page import check_report, write_report

__all__ = ["check_report", "write_agreement", "write_report"]
