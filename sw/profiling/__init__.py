"""Where a run's cycles went: figures, traces and pictures from the spans of its commands."""
