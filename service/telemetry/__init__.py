"""What is recorded: metrics, logs and traces."""
