"""From metrics.json to tables, curves and report.html."""
