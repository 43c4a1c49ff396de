"""What every stage runs on: artifacts, the workspace, supervised processes, hardware."""
