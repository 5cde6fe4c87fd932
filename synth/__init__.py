"""Synthesis and place and route: flows, targets, reports."""
