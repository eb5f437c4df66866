"""The one training loop: schedule, optimizer, exact resume, figures."""
