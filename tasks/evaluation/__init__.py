"""Evaluate a candidate on the test rows and decide whether it replaces the champion."""
