"""Confidence intervals, calibration and paired comparison of metrics."""
