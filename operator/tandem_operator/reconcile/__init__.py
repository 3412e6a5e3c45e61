"""The loop: observe, plan, apply, report. The only place that knows the order of things."""
